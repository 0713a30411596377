"""What one batch shows of a network's weights: every use of them, and what surrounds it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from weakref import ref

import torch
from torch import Tensor

from pruning.curvature.layers import recurrent
from pruning.curvature.layers.matrix import Form, Part, part_of
from pruning.errors import SecateurError
from pruning.layerwise import padding
from pruning.layerwise.padding import Layout
from pruning.layerwise.passes import Call, Pass
from pruning.layerwise.residence import tensors
from pruning.layerwise.watch import Use, Watch

_SUMS = {torch.add, Tensor.add, Tensor.add_, Tensor.__add__, Tensor.__radd__, Tensor.__iadd__}


@dataclass
class Sighting:
    """One use of a weight in the batch that was watched.

    Args:
        use: Weight and rows.
        form: Of the part of the weight that is used.
        number: Of the call.
        path: Digest of the calls before it.
        again: Whether its columns are those of the use before it, so that they need not be
            collected twice.
        layout: Where samples and tokens lie in its input, if a mask was given.
        stream: What its output is added to, as (call, position); None if nothing that was made
            before it.
    """

    use: Use
    form: Form
    number: int
    path: int
    again: bool
    layout: Layout | None = None
    stream: tuple[int, int] | None = None


@dataclass
class _Maker:
    """By which call a tensor was made, and by which it was changed last, to which version."""

    tensor: "ref[Tensor]"
    made: tuple[int, int]
    changed: int
    version: int


@dataclass
class _Source:
    """What the columns of a use depend on."""

    inputs: "ref[Tensor]"
    version: int
    rest: tuple[Any, ...]


class Sightings:
    """Watches a forward pass.

    Args:
        weights: By name.
        real: Which tokens of the batch are no padding, [N, T].

    Attributes:
        seen: The uses, in order.
        doubtful: By position in `seen` the layouts that a shape leaves open.
        refused: By name of a weight the error for the first call that is no matrix problem.
        notes: What a report should say.
    """

    def __init__(self, weights: Mapping[str, Tensor], real: Tensor | None) -> None:
        self.watch, self.real = Watch(weights), real
        self.seen: list[Sighting] = []
        self.refused: dict[str, SecateurError] = {}
        self.doubtful: dict[int, list[Layout]] = {}
        self.notes: list[str] = []
        self._last: _Source | None = None
        self._makers: dict[int, _Maker] = {}
        self._outputs: dict[int, tuple[ref[Tensor], Sighting]] = {}
        self._now: list[Sighting] = []

    def before(self, run: Pass, call: Call) -> bool:
        """See which weights the next call uses; never makes it wait."""
        if call.number == 0:
            self._made(-1, run.inputs)
        try:
            uses = self.watch.uses(call)
        except ValueError:
            uses = []
        args, kwargs = run.arguments(call) if uses else ((), {})
        self._now = [
            self._sight(call, use, part_of(call.func, args, kwargs, use.index)) for use in uses
        ]
        self._sum(call)
        return False

    def after(self, call: Call, result: Any) -> None:
        """Remember by which call a tensor was made, and which are outputs of a weight."""
        if not self._now:
            self._refuse_unknown(call, result)
        self._made(call.number, result)
        if len(self._now) == 1 and isinstance(result, Tensor):
            self._outputs[id(result)] = (ref(result), self._now[0])

    def _sight(self, call: Call, use: Use, part: Part) -> Sighting:
        rest = (call.func, part.form.shape[1:], part.form.groups, _settings(call))
        source = _Source(ref(part.inputs), part.inputs._version, rest)
        last, self._last = self._last, source
        again = (
            last is not None
            and last.inputs() is part.inputs
            and (last.version, last.rest) == (source.version, source.rest)
            and call.func not in recurrent.FUNCTIONS
        )
        seen = Sighting(use, part.form, call.number, call.path, again)
        if self.real is not None:
            size = (self.real.shape[0], self.real.shape[1])
            found = padding.layouts(part.places, size, part.ordered)
            if found:
                seen.layout = found[0]
            elif not padding.pooled(part.places, size[0]):
                self.notes.append(
                    f"{use.name}: padding counts, since its input of shape {list(part.places)} "
                    "does not show which of its places are tokens"
                )
            if len(found) > 1:
                self.doubtful[len(self.seen)] = found
        self.seen.append(seen)
        return seen

    def _made(self, number: int, result: Any) -> None:
        for position, tensor in enumerate(tensors(result)):
            known = self._makers.get(id(tensor))
            if known is not None and known.tensor() is tensor:
                if known.version != tensor._version:
                    known.changed, known.version = number, tensor._version
                continue
            made = _Maker(ref(tensor), (number, position), number, tensor._version)
            self._makers[id(tensor)] = made

    def _refuse_unknown(self, call: Call, result: Any) -> None:
        results = [self.watch.name(t) for t in tensors(result)]
        for name in map(self.watch.name, tensors((call.args, call.kwargs))):
            if name is None or name in self.refused or all(n == name for n in results):
                continue
            function = getattr(call.func, "__name__", str(call.func))
            self.refused[name] = SecateurError(
                "operator_unsupported",
                f"{name} goes into {function}, which is not known as a matrix problem.",
                where=name,
                hint="Exclude the layer from the scope, or write it with Linear, a convolution, a "
                "recurrent layer or MultiheadAttention.",
            )

    def _sum(self, call: Call) -> None:
        """If the call adds a weight's output to something made before, that is its stream."""
        if call.func not in _SUMS or call.kwargs or len(call.args) != 2:
            return
        for output, other in (call.args, call.args[::-1]):
            if not isinstance(output, Tensor) or not isinstance(other, Tensor):
                continue
            found = self._outputs.get(id(output))
            maker = self._makers.get(id(other))
            if found is None or found[0]() is not output or output is other:
                continue
            if maker is None or maker.tensor() is not other or output.shape != other.shape:
                continue
            if maker.version == other._version and maker.changed < found[1].number:
                found[1].stream = maker.made


def _settings(call: Call) -> str:
    """The arguments besides input, weight and bias."""
    named = {k: v for k, v in call.kwargs.items() if k not in ("input", "weight", "bias")}
    return repr((call.args[3:], named)) if call.func not in recurrent.FUNCTIONS else ""
