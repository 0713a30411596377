"""The order in which a network uses its weights, found by watching one batch go through it.

Layers that follow one another on the very same input (query, key and value) make one stage: they
share their Gram matrix. A weight that is used more than once is a stage of its own.
"""

import math
from collections.abc import Container, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from pruning.curvature.layers.matrix import Form, part_of
from pruning.errors import SecateurError
from pruning.layerwise import padding
from pruning.layerwise.passes import Call, Pass
from pruning.layerwise.residence import Residence
from pruning.layerwise.sightings import Sighting, Sightings


@dataclass
class Stage:
    """Weights that are solved together, on one Gram matrix.

    Args:
        forms: By name how each lies in matrices.
        sightings: By name all uses, in order.
    """

    forms: dict[str, Form]
    sightings: dict[str, list[Sighting]]

    @property
    def names(self) -> list[str]:
        """Of the weights, in the order of their use."""
        return list(self.forms)

    def without(self, done: Container[str]) -> "Stage | None":
        """The stage without the weights that are done; None if that is all of them."""
        names = [name for name in self.names if name not in done]
        forms = {name: self.forms[name] for name in names}
        return Stage(forms, {name: self.sightings[name] for name in names}) if names else None

    def turned(self, name: str) -> bool:
        """Whether a weight is multiplied by in one use and its transpose in another."""
        return len({seen.form.transposed for seen in self.sightings[name]}) > 1

    @property
    def shared(self) -> bool:
        """Whether its one weight is used more than once."""
        return any(len(uses) > 1 for uses in self.sightings.values())


@dataclass
class Order:
    """Stages in the order of first use.

    Args:
        stages: Weights that are solved together.
        refused: By name the error for a weight that can't be solved: no call uses it, or one does
            otherwise than as a matrix.
        notes: What a report should say.
    """

    stages: list[Stage]
    refused: dict[str, SecateurError]
    notes: list[str] = field(default_factory=list)


def find_order(
    module: nn.Module,
    weights: Mapping[str, Tensor],
    inputs: tuple[Tensor, ...],
    residence: Residence,
    real: Tensor | None = None,
) -> Order:
    """Watch one batch.

    Args:
        module: The network.
        weights: In scope, by parameter name.
        inputs: The batch.
        residence: Runs the calls.
        real: Which tokens of the batch are no padding, [N, T].
    """
    watcher = Sightings(weights, real)
    with Pass(module, inputs, residence, after=watcher.after) as run:
        run.advance(lambda call: watcher.before(run, call))
    if real is not None and watcher.doubtful:
        _settle(watcher, module, inputs, residence, real)
    stages = _stages(watcher.seen, weights)
    met = {name for stage in stages for name in stage.names}
    refused = {n: _never_used(n) for n in weights if n not in met}
    refused |= {n: _both_ways(n) for stage in stages for n in stage.names if stage.turned(n)}
    refused |= watcher.refused
    return Order(stages, refused, watcher.notes)


def _never_used(name: str) -> SecateurError:
    return SecateurError(
        "operator_unsupported",
        f"No call of the forward pass takes {name} as a weight.",
        where=name,
        hint="Exclude the layer from the scope: it may be unused, or compiled, or its weight is "
        "computed from other tensors.",
    )


def _both_ways(name: str) -> SecateurError:
    return SecateurError(
        "operator_unsupported",
        f"{name} is used as it is in one place and transposed in another, so that there is no one "
        "problem of least squares for its outputs.",
        where=name,
        hint="Exclude the layer from the scope, or take a criterion over the whole network.",
    )


def _stages(seen: list[Sighting], weights: Mapping[str, Tensor]) -> list[Stage]:
    uses: dict[str, list[Sighting]] = {}
    for one in seen:
        uses.setdefault(one.use.name, []).append(one)
    stages: list[Stage] = []
    open_ = False
    for one in seen:
        name = one.use.name
        own = uses[name]
        if own[0] is not one:
            open_ = False
            continue
        alone = len(own) > 1 or one.use.rows is not None
        if one.again and open_ and not alone:
            stages[-1].forms[name], stages[-1].sightings[name] = one.form, own
        else:
            stages.append(Stage({name: _whole(own, weights[name])}, {name: own}))
        open_ = not alone
    return stages


def _whole(uses: list[Sighting], weight: Tensor) -> Form:
    """The form of a whole weight, cut into groups where its calls use different rows."""
    edges = [edge for seen in uses for edge in seen.use.rows or ()]
    if not edges:
        return uses[0].form
    unit = math.gcd(len(weight), *edges)
    return Form(tuple(weight.shape), len(weight) // unit)


def _settle(
    watcher: Sightings,
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    residence: Residence,
    real: Tensor,
) -> None:
    """Run the batch beside the same with its samples moved on by one, and compare."""
    moved = tuple(x.roll(1, 0) for x in inputs)
    size, at = (real.shape[0], real.shape[1]), -1

    def stop(call: Call) -> bool:
        return call.number == at

    with Pass(module, inputs, residence) as here, Pass(module, moved, residence) as there:
        for position, candidates in watcher.doubtful.items():
            seen = watcher.seen[position]
            at = seen.number
            one, two = here.advance(stop), there.advance(stop)
            if one is None or two is None or not one.path == two.path == seen.path:
                watcher.notes.append(
                    f"{seen.use.name}: which of its places are tokens is a guess, since the "
                    "order of samples in a batch decides what the model calls"
                )
                continue
            first, second = (
                part_of(call.func, *run.arguments(call), seen.use.index)
                for run, call in ((here, one), (there, two))
            )
            seen.layout = padding.tell(candidates, first.inputs, second.inputs, size, first.axes)
