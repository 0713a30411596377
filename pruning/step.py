"""One step of the schedule: score, choose, compensate, measure; and the recovery after it."""

import math
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from pruning.catalogue import Declaration
from pruning.catalogue.compensation.layerwise import Layerwise
from pruning.catalogue.criteria.obs import OBS
from pruning.checkpoint import Checkpoints
from pruning.choice import compensate, own_prediction, score, select
from pruning.criteria import Problem
from pruning.curvature import Request, compute
from pruning.curvature.derivatives import lacks_derivative
from pruning.curvature.matrix import LINEAR, Matrix, average
from pruning.curvature.quadratic import Prediction, predict
from pruning.errors import SecateurError
from pruning.evidence import View, gather
from pruning.factorization import refusal
from pruning.job import Job, State
from pruning.layerwise.cut import cut as cut_layers
from pruning.layerwise.walk import Layer
from pruning.metrics import evaluate
from pruning.recovery.fine_tune import round_seed
from pruning.registry import method
from pruning.report.schema import DampingTrial, LayerOutput, Round
from pruning.schedule.step import Step
from pruning.solvers import damping as dampings
from pruning.solvers import greedy
from pruning.solvers.null_space import free
from pruning.solvers.singular import SingularError
from pruning.spec import OneByOne
from pruning.trust.assess import assess

MENDED_BY_DAMPING = ("loss_non_finite", "factorization_failed")
"""Errors of one damping that another one may not have; all others end the sweep."""


PREDICTED_MACS = 20_000_000_000
"""Multiply-adds over the calibration data up to which a layer-wise step predicts the loss: the
second derivatives cost six forward passes."""


@dataclass(frozen=True)
class Cut:
    """Which active weights go, with their scores [A], and how all of them change [A].

    `problem` is what the criterion knew; None where no weights were left, and layer-wise. `macs`
    are the multiply-adds of the layers in scope over the calibration data, known layer-wise.
    """

    scores: Tensor
    removed: Tensor
    change: Tensor
    damping: float | None = None
    problem: Problem | None = None
    macs: int | None = None


def start(job: Job) -> State:
    """The state before the first step: the dense network is measured."""
    job.narrator.phase("evaluating")
    dense = evaluate(job.module, job.data.calibration, job.loss)
    metrics = _measure(job, "dense", dense.loss)
    kept = torch.ones(len(job.weights), dtype=torch.bool, device=job.device)
    saliency = torch.zeros(len(job.weights), dtype=torch.float64, device=job.device)
    return State(dense, metrics, kept, saliency, [0.0] * len(job.weights.layers))


def remove(job: Job, state: State, step: Step, store: Checkpoints) -> None:
    """Remove until `step.removed` weights are gone, move the survivors, predict and measure.

    Args:
        job: What is pruned.
        state: How far it is; it is brought forward by the step.
        step: How far it shall be.
        store: Where layers that are solved one by one are kept.
    """
    number = len(state.rounds) + 1
    old, active = job.weights.read(), state.kept.nonzero()[:, 0]
    count = step.removed - (len(state.kept) - len(active))
    before = state.loss
    job.narrator.phase("scoring")
    if isinstance(job.spec.compensation, Layerwise):
        cut = _cut_layerwise(job, state, old, active, step.removed, store)
    else:
        cut = _cut(job, state, number, old[active], active, count, step.removed)
    state.general = sorted({*state.general, *job.general})
    if number == 1 and cut.problem is not None:
        state.trust, state.trust_checks = assess(job, cut.problem)

    job.narrator.phase("pruning")
    change = _apply(job, old, active, cut)
    # The prediction refers to the weights from which the step started.
    job.weights.write(old)
    prediction, why_not = _predict(job, cut, change)
    job.weights.write(old + change)
    state.saliency[active] = cut.scores
    state.kept[active[cut.removed]] = False
    state.predicted_by_layer = [
        a + b for a, b in zip(state.predicted_by_layer, prediction.by_layer, strict=True)
    ]
    gone = len(state.kept) - int(state.kept.sum())

    job.narrator.phase("evaluating")
    pruned = evaluate(job.module, job.data.calibration, job.loss).loss
    last = number == len(job.steps)
    state.pruned_metrics = _measure(job, "pruned" if last else f"round {number}", pruned)
    state.rounds.append(
        Round(
            index=number,
            sparsity=gone / len(state.kept),
            removed=int(cut.removed.sum()),
            predicted_increase=prediction.total,
            matrix=prediction.matrix,
            not_predicted=why_not,
            criterion_predicted_increase=_own(job, cut),
            measured_increase=pruned - before,
            damping=cut.damping,
            without_curvature=_without_curvature(cut.problem),
            loss_before=before,
            loss_pruned=pruned,
        )
    )


def recover(job: Job, state: State) -> None:
    """Train the survivors after the last step, if the spec has a recovery."""
    options = job.spec.recovery
    if options.kind == "none":
        return
    number = len(state.rounds)
    job.narrator.phase("recovering")
    method("recovery", options.kind).recover(
        job.module,
        job.data.training,
        job.loss,
        job.masking(state.kept),
        options,
        seed=round_seed(job.spec.seed, number),
        progress=lambda done, total: job.narrator.progress(done, total, f"round {number}"),
    )
    job.narrator.phase("evaluating")
    loss = evaluate(job.module, job.data.calibration, job.loss).loss
    stage = "recovered" if number == len(job.steps) else f"round {number} recovered"
    state.recovered_metrics = _measure(job, stage, loss)
    state.rounds[-1].loss_recovered = loss


def _measure(job: Job, stage: str, loss: float) -> dict[str, float]:
    job.narrator.metric("loss", stage, loss)
    if not job.metrics:
        return {}
    metrics = evaluate(job.module, job.data.evaluation, job.loss, job.metrics).metrics
    for name, value in metrics.items():
        job.narrator.metric(name, stage, value)
    return metrics


def _predict(job: Job, cut: Cut, change: Tensor) -> tuple[Prediction, str | None]:
    """The prediction; NaN, and the reason, where there is none.

    None is made where torch can't differentiate the network, or where it would cost out of all
    proportion to a layer-wise step; such a step is not split by layer either.
    """
    nothing = [math.nan] * len(job.weights.layers)
    if cut.macs is not None and cut.macs > PREDICTED_MACS:
        words = (
            f"Layer-wise pruning takes no derivatives, and over the {cut.macs:.1e} multiply-adds "
            "of the calibration data they would cost several times as much as the pruning."
        )
        return Prediction(math.nan, math.nan, nothing), words
    layerwise = cut.macs is not None
    try:
        found = predict(
            job.network(), job.data.calibration, job.loss, change, by_layer=not layerwise
        )
    except SecateurError as failure:
        if not lacks_derivative(failure):
            raise
        return Prediction(math.nan, math.nan, nothing), failure.message
    return replace(found, by_layer=nothing) if layerwise else found, None


def _own(job: Job, cut: Cut) -> float | None:
    """What the criterion itself foretells, nothing where no weights were left."""
    problem = cut.problem
    if problem is None:
        return 0.0 if cast(Declaration, job.spec.criterion).about.unit == "loss" else None
    return own_prediction(job, problem, cut.scores, cut.removed, cut.change)


def _without_curvature(problem: Problem | None) -> int:
    """Active weights that the OBS inverse leaves out; see `pruning.solvers.null_space`."""
    if problem is None or problem.curvature is None or not isinstance(problem.criterion, OBS):
        return 0
    return int(free(problem.curvature, problem.damping).sum())


def _apply(job: Job, old: Tensor, active: Tensor, cut: Cut) -> Tensor:
    """Write the changed weights; the change that is left of it in the weights' own dtypes."""
    new = old.clone()
    new[active] += cut.change
    new[active[cut.removed]] = 0.0
    job.weights.write(new)
    return job.weights.read() - old


def _cut(
    job: Job, state: State, number: int, weights: Tensor, active: Tensor, count: int, target: int
) -> Cut:
    if len(active) == 0:
        # A tiny network may be empty before the last step, and nothing has no curvature.
        return Cut(weights, torch.zeros_like(active, dtype=torch.bool), weights)
    criterion: Any = job.spec.criterion
    # Chosen by the weights in scope, so that all steps use the one that plan and report name.
    request: Request | None = method("criteria", criterion.kind).curvature(
        criterion, len(job.weights)
    )
    seed = job.spec.seed
    view = View(job.network(), job.data.calibration, job.loss, active, seed)
    problem = Problem(weights, evidence=gather(criterion, view), criterion=criterion)
    if request is None:
        return _solve(job, problem, active, count, target)
    damping = getattr(criterion, "damping", 0.0)
    if damping == "auto":
        return _cut_with_best_damping(job, state, number, request, problem, active, count, target)
    curvature = compute(request, job.network(), job.data.calibration, job.loss, active, seed)
    absolute = dampings.absolute(damping, curvature)
    try:
        problem = replace(problem, curvature=curvature, damping=absolute)
        cut = _solve(job, problem, active, count, target)
    except SingularError as failure:
        raise refusal(job.weights, failure, active, damping, criterion) from None
    return replace(cut, damping=damping if hasattr(criterion, "damping") else None)


def _cut_layerwise(
    job: Job, state: State, old: Tensor, active: Tensor, target: int, store: Checkpoints
) -> Cut:
    """The layers one after another; the criterion chooses first where the solver does not."""
    compensation: Any = job.spec.compensation
    number, count = len(state.rounds) + 1, target - (len(state.kept) - len(active))
    scores, chosen = None, None
    if not compensation.chooses:
        first = _cut(job, state, number, old[active], active, count, target)
        scores, chosen = first.scores, ~state.kept
        chosen[active[first.removed]] = True
    done = cut_layers(job, state.kept, count, target, chosen, store.layers(number))
    state.layer_outputs += [_output(number, layer) for layer in done.layers]
    state.notes += [n for n in done.notes if n not in state.notes]
    sizes = {p.name: p.weight.numel() for p in job.weights.layers}
    return Cut(
        done.scores[active] if scores is None else scores,
        done.removed[active],
        (done.weights - old)[active],
        damping=compensation.damping,
        macs=sum(layer.columns * sizes[layer.name] for layer in done.layers),
    )


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


def _cut_with_best_damping(
    job: Job,
    state: State,
    number: int,
    request: Request,
    bare: Problem,
    active: Tensor,
    count: int,
    target: int,
) -> Cut:
    """Compare dampings with the curvature of one part of the data on the other; then use both."""
    rest, held = job.held_out
    seed = job.spec.seed
    rest_curvature = compute(request, job.network(), rest, job.loss, active, seed)
    curvature: Matrix
    if isinstance(rest_curvature, LINEAR):
        held_curvature: Any = compute(request, job.network(), held, job.loss, active, seed)
        share = rest.samples / job.data.calibration.samples
        curvature = average(rest_curvature, held_curvature, share)
        del held_curvature
    else:
        curvature = compute(request, job.network(), job.data.calibration, job.loss, active, seed)
    old = job.weights.read()
    before = evaluate(job.module, held, job.loss).loss
    failures: list[SecateurError] = []

    def measure(damping: float) -> dampings.Trial:
        absolute = dampings.absolute(damping, rest_curvature)
        problem = replace(bare, curvature=rest_curvature, damping=absolute)
        job.narrator.progress(0, 1, f"damping {damping:g}")
        try:
            change = _apply(job, old, active, _solve(job, problem, active, count, target))
            loss = evaluate(job.module, held, job.loss).loss
        except SingularError as failure:
            error = refusal(job.weights, failure, active, damping, job.spec.criterion)
            failures.append(error)
            return dampings.Trial(damping, error=error.message)
        except SecateurError as failure:
            if failure.code not in MENDED_BY_DAMPING:
                raise
            failures.append(failure)
            return dampings.Trial(damping, error=failure.message)
        finally:
            job.weights.write(old)
        predicted = predict(job.network(), held, job.loss, change, by_layer=False).total
        return dampings.Trial(damping, loss, predicted, loss - before)

    near = state.rounds[-1].damping if state.rounds else None
    trials = dampings.sweep(measure, near)
    chosen = dampings.best(trials)
    state.sweep += [
        DampingTrial(
            round=number,
            damping=trial.damping,
            loss=trial.loss,
            predicted_increase=trial.predicted,
            measured_increase=trial.measured,
            error=trial.error,
            chosen=i == chosen,
        )
        for i, trial in enumerate(trials)
    ]
    if chosen is None:
        raise failures[-1]
    damping = trials[chosen].damping
    try:
        absolute = dampings.absolute(damping, curvature)
        problem = replace(bare, curvature=curvature, damping=absolute)
        cut = _solve(job, problem, active, count, target)
    except SingularError as failure:
        raise refusal(job.weights, failure, active, damping, job.spec.criterion) from None
    return replace(cut, damping=damping)


def _solve(job: Job, problem: Problem, active: Tensor, count: int, target: int) -> Cut:
    """Score, choose exactly `count` weights, and let the compensation move the others."""
    spec: Any = job.spec
    if isinstance(spec.schedule, OneByOne) and isinstance(spec.criterion, OBS):
        path = greedy.path(problem, count)
        return Cut(path.scores, path.removed, path.change, problem=problem)
    scores = score(job, problem)
    removed = select(job, scores, active, count, target)
    return Cut(scores, removed, compensate(job, problem, removed), problem=problem)
