"""A step of a job by `compensation: {kind: layerwise}`."""

from dataclasses import replace
from typing import Any

from torch import Tensor

from pruning.checkpoint import Checkpoints
from pruning.cut import Cut, apply
from pruning.cut import cut as cut_by_criterion
from pruning.job import Job, State
from pruning.layerwise.cut import LayerwiseCut
from pruning.layerwise.cut import cut as cut_layers
from pruning.layerwise.walk import Layer
from pruning.report.schema import LayerOutput
from pruning.sweep import best_damping


def cut(
    job: Job, state: State, old: Tensor, active: Tensor, target: int, store: Checkpoints
) -> Cut:
    """The layers one after another; the criterion chooses first where the solver does not.

    Args:
        job: The module is at the weights from which the step starts, and is left there.
        state: Takes what is known of each layer's outputs, and the sweep of an automatic damping.
        old: All weights in scope, shape [W], float64.
        active: Flat positions of those that are left, ascending, shape [A].
        target: How many are gone in all afterwards.
        store: Where solved layers are kept.

    Raises:
        SecateurError: What the walk raises, or the criterion.
    """
    compensation: Any = job.spec.compensation
    number, count = len(state.rounds) + 1, target - (len(old) - len(active))
    scores, chosen = None, None
    if not compensation.chooses:
        first = cut_by_criterion(job, state, old, active, target)
        scores, chosen = first.scores, ~state.kept
        chosen[active[first.removed]] = True
    damping = compensation.damping
    if damping == "auto":
        rest = replace(job.data, calibration=job.held_out[0])
        part = replace(job, data=rest)

        def prune(candidate: float) -> Tensor:
            done = cut_layers(part, state.kept, count, target, candidate, chosen)
            return apply(job, old, active, _of(done, old, active))

        damping = best_damping(job, state, prune, predicted=False)
    done = cut_layers(job, state.kept, count, target, damping, chosen, store.layers(number))
    state.layer_outputs += [_output(number, layer) for layer in done.layers]
    state.notes += [n for n in done.notes if n not in state.notes]
    sizes = {p.name: p.weight.numel() for p in job.weights.layers}
    found = _of(done, old, active)
    return replace(
        found,
        scores=found.scores if scores is None else scores,
        damping=damping,
        macs=sum(layer.columns * sizes[layer.name] for layer in done.layers),
    )


def _of(done: LayerwiseCut, old: Tensor, active: Tensor) -> Cut:
    return Cut(done.scores[active], done.removed[active], (done.weights - old)[active])


def _output(number: int, layer: Layer) -> LayerOutput:
    return LayerOutput(
        layer=layer.name,
        round=number,
        error=layer.error,
        relative_error=layer.relative,
        columns=layer.columns,
        entries=layer.entries,
        dead_inputs=layer.dead,
    )
