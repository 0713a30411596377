"""One step of the schedule: score, choose, compensate, measure; and the recovery after it."""

import math
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from pruning.catalogue import Declaration
from pruning.catalogue.criteria.obs import OBS
from pruning.choice import compensate, score, select
from pruning.criteria import Problem
from pruning.curvature import Request, compute
from pruning.curvature.matrix import LINEAR, Matrix, average
from pruning.curvature.quadratic import predict
from pruning.errors import SecateurError
from pruning.evidence import View, gather
from pruning.job import Job, State
from pruning.metrics import evaluate
from pruning.recovery.fine_tune import round_seed
from pruning.registry import method
from pruning.report.schema import DampingTrial, Round
from pruning.schedule.step import Step
from pruning.solvers import damping as dampings
from pruning.solvers import greedy
from pruning.solvers.obs import SingularError
from pruning.spec import OneByOne
from pruning.trust.assess import assess


@dataclass(frozen=True)
class Cut:
    """Which active weights go, with their scores [A], and how all of them change [A].

    `problem` is what the criterion knew; None where no weights were left.
    """

    scores: Tensor
    removed: Tensor
    change: Tensor
    damping: float | None = None
    problem: Problem | None = None


def start(job: Job) -> State:
    """The state before the first step: the dense network is measured."""
    job.narrator.phase("evaluating")
    dense = evaluate(job.module, job.data.calibration, job.loss)
    metrics = _measure(job, "dense", dense.loss)
    kept = torch.ones(len(job.weights), dtype=torch.bool, device=job.device)
    saliency = torch.zeros(len(job.weights), dtype=torch.float64, device=job.device)
    return State(dense, metrics, kept, saliency, [0.0] * len(job.weights.layers))


def remove(job: Job, state: State, step: Step) -> None:
    """Remove until `step.removed` weights are gone, move the survivors, predict and measure."""
    number, criterion = len(state.rounds) + 1, cast(Declaration, job.spec.criterion)
    old, active = job.weights.read(), state.kept.nonzero()[:, 0]
    count = step.removed - (len(state.kept) - len(active))
    before = state.loss
    job.narrator.phase("scoring")
    cut = _cut(job, state, number, old[active], active, count, step.removed)
    if number == 1 and cut.problem is not None:
        state.trust, state.trust_checks = assess(job, cut.problem)

    job.narrator.phase("pruning")
    change = _apply(job, old, active, cut)
    # The prediction refers to the weights from which the step started.
    job.weights.write(old)
    prediction = predict(job.network(), job.data.calibration, job.loss, change)
    job.weights.write(old + change)
    state.saliency[active] = cut.scores
    state.kept[active[cut.removed]] = False
    state.predicted_by_layer = [
        a + b for a, b in zip(state.predicted_by_layer, prediction.by_layer, strict=True)
    ]
    in_loss_units = criterion.about.unit == "loss"

    job.narrator.phase("evaluating")
    pruned = evaluate(job.module, job.data.calibration, job.loss).loss
    last = number == len(job.steps)
    state.pruned_metrics = _measure(job, "pruned" if last else f"round {number}", pruned)
    state.rounds.append(
        Round(
            index=number,
            sparsity=step.removed / len(state.kept),
            removed=count,
            predicted_increase=prediction.total,
            criterion_predicted_increase=(
                float(cut.scores[cut.removed].sum()) if in_loss_units else None
            ),
            measured_increase=pruned - before,
            damping=cut.damping,
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
    view = View(job.network(), job.data.calibration, job.loss, active, job.spec.seed)
    problem = Problem(weights, evidence=gather(criterion, view), criterion=criterion)
    if request is None:
        return _solve(job, problem, active, count, target)
    damping = getattr(criterion, "damping", 0.0)
    if damping == "auto":
        return _cut_with_best_damping(job, state, number, request, problem, active, count, target)
    curvature = compute(request, job.network(), job.data.calibration, job.loss, active)
    absolute = _absolute(damping, curvature)
    try:
        problem = replace(problem, curvature=curvature, damping=absolute)
        cut = _solve(job, problem, active, count, target)
    except SingularError as failure:
        raise _refusal(job, failure, active, damping) from None
    return replace(cut, damping=damping if hasattr(criterion, "damping") else None)


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
    rest_curvature = compute(request, job.network(), rest, job.loss, active)
    curvature: Matrix
    if isinstance(rest_curvature, LINEAR):
        held_curvature: Any = compute(request, job.network(), held, job.loss, active)
        share = rest.samples / job.data.calibration.samples
        curvature = average(rest_curvature, held_curvature, share)
        del held_curvature
    else:
        curvature = compute(request, job.network(), job.data.calibration, job.loss, active)
    old = job.weights.read()
    before = evaluate(job.module, held, job.loss).loss
    failures: list[SingularError] = []

    def measure(damping: float) -> dampings.Trial:
        absolute = _absolute(damping, rest_curvature)
        problem = replace(bare, curvature=rest_curvature, damping=absolute)
        job.narrator.progress(0, 1, f"damping {damping:g}")
        try:
            change = _apply(job, old, active, _solve(job, problem, active, count, target))
            loss = evaluate(job.module, held, job.loss).loss
        except SingularError as failure:
            failures.append(failure)
            return dampings.Trial(damping, error=str(failure))
        except SecateurError as error:
            return dampings.Trial(damping, error=str(error))
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
        if not failures:
            raise SecateurError("loss_non_finite", str(trials[-1].error), where="spec.criterion")
        raise _refusal(job, failures[-1], active, trials[-1].damping)
    damping = trials[chosen].damping
    try:
        absolute = _absolute(damping, curvature)
        problem = replace(bare, curvature=curvature, damping=absolute)
        cut = _solve(job, problem, active, count, target)
    except SingularError as failure:
        raise _refusal(job, failure, active, damping) from None
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


def _absolute(damping: float, curvature: Matrix) -> float:
    """A relative damping in the curvature's own units."""
    return damping * float(curvature.diagonal().abs().mean())


def _refusal(job: Job, failure: SingularError, active: Tensor, damping: float) -> SecateurError:
    groups = job.weights.group[active[failure.weights]]
    diagonal = failure.diagonal
    means = [float(diagonal[groups == n].mean()) for n in groups.unique().tolist()]
    weakest = int(groups.unique()[int(torch.tensor(means).argmin())])
    layer = job.weights.layers[weakest].layer
    rank, condition = failure.rank_and_condition()
    size = len(failure.weights)
    if size == len(active) and not bool(diagonal.any()):
        return SecateurError(
            "factorization_failed",
            f"The curvature over all {size} weights left is zero: the loss depends on none of "
            "them, as when a layer was removed as a whole.",
            where=layer,
            hint="Use allocation: {kind: uniform}, a lower sparsity, or exclude the last layer.",
            rank=0,
            weights=size,
            damping=damping,
        )
    return SecateurError(
        "factorization_failed",
        f"The curvature over {size} weights has numerical rank {rank} and condition number "
        f"{condition:.1e} at damping {damping:g}; the least curvature is in layer {layer}.",
        where=layer,
        hint="Use a larger criterion.damping or damping: auto, more calibration samples, or "
        "exclude the layer.",
        rank=rank,
        condition=condition if math.isfinite(condition) else None,
        weights=size,
        damping=damping,
    )
