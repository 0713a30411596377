"""One step of the schedule: score, choose, compensate, measure; and the recovery after it."""

import math
from typing import cast

import torch
from torch import Tensor

from pruning.catalogue import Declaration
from pruning.catalogue.compensation.layerwise import Layerwise
from pruning.catalogue.criteria.obs import OBS
from pruning.checkpoint import Checkpoints
from pruning.choice import own_prediction
from pruning.criteria import Problem
from pruning.curvature.derivatives import lacks_derivative
from pruning.curvature.quadratic import Prediction, predict
from pruning.cut import Cut, apply, cut_by_way
from pruning.dense import Evaluated
from pruning.errors import SecateurError
from pruning.job import Job, State
from pruning.layerwise import step as layerwise
from pruning.metrics import Evaluation, evaluate
from pruning.output_checks import check_accuracy
from pruning.recovery.fine_tune import round_seed, split_seed
from pruning.recovery.lighten import lightened
from pruning.recovery.setting import Setting
from pruning.recovery.teacher import check, features_of, teacher_of
from pruning.registry import method
from pruning.report.schema import Round
from pruning.report.trust import Check, Trust
from pruning.rewind import to_earlier
from pruning.schedule.earlier import start_epoch
from pruning.schedule.step import Step
from pruning.solvers.null_space import free
from pruning.spec import AtInitialisation, Proximal
from pruning.state import load_state, state_of
from pruning.trust.assess import assess

PREDICTED_MACS = 20_000_000_000
"""Multiply-adds over the calibration data up to which a layer-wise step predicts the loss: the
second derivatives cost six forward passes."""


def start(job: Job, store: Checkpoints) -> State:
    """The state before the first step: the dense network is measured.

    A schedule that does not begin at the dense weights leaves its own in the module.

    Args:
        job: The dense weights are in its module.
        store: Takes the network that was softened, which is not softened twice.
    """
    check(job)
    job.narrator.phase("evaluating")
    # Without labels, the targets are this very network's outputs.
    module = job.module if job.spec.objective.needs_labels else None
    if job.dense.measured is None:
        loss = evaluate(module, job.data.calibration, job.loss)
        job.dense.measured = Evaluated(loss, _measure(job, "dense", loss.loss))
        measured = job.dense.measured.metrics
        if measured is not None and "accuracy" in measured.metrics:
            check_accuracy(job, measured.metrics["accuracy"])
    dense, metrics = job.dense.measured.loss, job.dense.measured.metrics
    kept = ~job.existing.gone
    saliency = torch.zeros(len(job.weights), dtype=torch.float64, device=job.device)
    state = State(dense, {}, kept, saliency, [0.0] * len(job.weights.layers))
    state.dense_metrics = _note(state, "dense", metrics)
    schedule = job.spec.schedule
    if isinstance(schedule, AtInitialisation) and job.dense.rewind_to is not None:
        to_earlier(job)
        job.masking(state.kept).weights()
        state.begun = evaluate(job.module, job.data.calibration, job.loss).loss
    elif isinstance(schedule, Proximal):
        job.narrator.phase("recovering")
        _soften(job, state, schedule, store)
        job.narrator.phase("evaluating")
        state.begun = evaluate(job.module, job.data.calibration, job.loss).loss
        job.narrator.metric("loss", "softened", state.begun)
        store.save(state)
    return state


def _soften(job: Job, state: State, schedule: Proximal, store: Checkpoints) -> None:
    """Soft pruning does not depend on the target, so several runs of a job share it."""

    def softened() -> dict[str, Tensor]:
        method("recovery", schedule.kind).soften(job, state, schedule, store.training(0))
        return {k: v.detach().clone() for k, v in state_of(job.module).items()}

    parts = (schedule, job.spec.recovery, job.spec.scope)
    key = (*(part.model_dump_json() for part in parts), job.spec.seed)
    load_state(job.module, job.shared("softened", key, softened))


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
    before = state.loss
    job.narrator.phase("scoring")
    if isinstance(job.spec.compensation, Layerwise):
        made = layerwise.cut(job, state, old, active, step.removed, store)
    else:
        made = cut_by_way(job, state, old, active, step)
    state.general = sorted({*state.general, *job.general})
    if number == 1 and made.problem is not None:
        state.trust, state.trust_checks = assess(job, made.problem, made.problem_scores)

    job.narrator.phase("pruning")
    change = apply(job, old, active, made)
    # The prediction refers to the weights from which the step started.
    job.weights.write(old)
    prediction, why_not = _predict(job, made, change)
    job.weights.write(old + change)
    state.saliency[active] = made.scores
    state.kept[active[made.removed]] = False
    state.predicted_by_layer = [
        a + b for a, b in zip(state.predicted_by_layer, prediction.by_layer, strict=True)
    ]
    gone = len(state.kept) - int(state.kept.sum())

    job.narrator.phase("evaluating")
    pruned = evaluate(job.module, job.data.calibration, job.loss).loss
    last = number == len(job.steps)
    measured = _measure(job, "pruned" if last else f"round {number}", pruned)
    state.pruned_metrics = _note(state, "pruned", measured)
    state.rounds.append(
        Round(
            index=number,
            sparsity=gone / len(state.kept),
            removed=int(made.removed.sum()),
            predicted_increase=prediction.total,
            matrix=prediction.matrix,
            not_predicted=why_not,
            criterion_predicted_increase=_own(job, made),
            measured_increase=pruned - before,
            damping=made.damping,
            without_curvature=_without_curvature(made.problem),
            loss_before=before,
            loss_pruned=pruned,
        )
    )


def assessed(job: Job, store: Checkpoints) -> tuple[Trust | None, list[Check]]:
    """What a job's first step finds out about trust, without taking it.

    Args:
        job: At the dense weights, and left there.
        store: As that of `start`.
    """
    state = start(job, store)
    old, active = job.weights.read(), state.kept.nonzero()[:, 0]
    job.narrator.phase("scoring")
    made = cut_by_way(job, state, old, active, job.steps[0])
    return (None, []) if made.problem is None else assess(job, made.problem, made.problem_scores)


def recover(job: Job, state: State, store: Checkpoints | None = None) -> None:
    """Train the survivors after the last step, if the spec has a recovery.

    Args:
        job: What is pruned.
        state: After the step.
        store: Where a long training is kept between its epochs.
    """
    options = job.spec.recovery
    if options.kind == "none":
        return
    number = len(state.rounds)
    job.narrator.phase("recovering")
    setting = Setting(
        job.module,
        job.data.training,
        job.loss,
        job.masking(state.kept),
        round_seed(job.spec.seed, number),
        teacher=teacher_of(job),
        features=features_of(job),
        first=start_epoch(job.spec),
        split_seed=split_seed(job.spec.seed),
        saved=None if store is None else store.training(number),
        progress=lambda done, total: job.narrator.progress(
            done, total, f"round {number}", whole=True
        ),
    )
    with lightened(job, state):
        notes = method("recovery", options.kind).recover(setting, options)
    state.notes += [f"Recovery, step {number}: {note}" for note in notes]
    job.narrator.phase("evaluating")
    loss = evaluate(job.module, job.data.calibration, job.loss).loss
    stage = "recovered" if number == len(job.steps) else f"round {number} recovered"
    state.recovered_metrics = _note(state, "recovered", _measure(job, stage, loss))
    state.rounds[-1].loss_recovered = loss


def _measure(job: Job, stage: str, loss: float) -> Evaluation | None:
    job.narrator.metric("loss", stage, loss)
    if not job.metrics:
        return None
    found = evaluate(job.module, job.data.evaluation, job.loss, job.metrics)
    for name, value in found.metrics.items():
        job.narrator.metric(name, stage, value)
    return found


def _note(state: State, stage: str, found: Evaluation | None) -> dict[str, float]:
    """Keep the metrics of every sample, and answer their means."""
    if found is None:
        return {}
    state.each |= {f"{stage}.{name}": values for name, values in found.each.items()}
    return found.metrics


def _predict(job: Job, cut: Cut, change: Tensor) -> tuple[Prediction, str | None]:
    """The prediction; NaN, and the reason, where there is none.

    None is made where torch can't differentiate the network, or where it would cost out of all
    proportion to a layer-wise step.
    """
    unknown = [math.nan] * len(job.weights.layers)
    if not job.predicts:
        return Prediction(unknown, unknown), None
    if cut.macs is not None and cut.macs > PREDICTED_MACS:
        words = (
            f"Layer-wise pruning takes no derivatives, and over the {cut.macs:.1e} multiply-adds "
            "of the calibration data they would cost several times as much as the pruning."
        )
        return Prediction(unknown, unknown), words
    try:
        return predict(job.network(), job.data.calibration, job.loss, change), None
    except SecateurError as failure:
        if not lacks_derivative(failure):
            raise
        return Prediction(unknown, unknown), failure.message


def _own(job: Job, cut: Cut) -> float | None:
    """What the criterion itself predicts; 0 where no weights were left."""
    problem = cut.problem
    if problem is None:
        return 0.0 if cast(Declaration, job.spec.criterion).about.unit == "loss" else None
    return own_prediction(job, problem, cut.scores, cut.removed, cut.change)


def _without_curvature(problem: Problem | None) -> int:
    """Active weights that the OBS inverse leaves out; see `pruning.solvers.null_space`."""
    if problem is None or problem.curvature is None or not isinstance(problem.criterion, OBS):
        return 0
    return int(free(problem.curvature, problem.damping).sum())
