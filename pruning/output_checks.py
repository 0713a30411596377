"""What the dense network puts out on the calibration data: whether loss and metrics can tell."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pruning.allowed import allows
from pruning.curvature.network import first_output
from pruning.data.batches import ArrayData
from pruning.errors import SecateurError
from pruning.intervals import of_mean
from pruning.meaning import check_classes, check_model
from pruning.meaning import check_outputs as check_shape
from pruning.metrics import FIXED
from pruning.report.numbers import limit as told
from pruning.report.numbers import metric as shown
from pruning.report.numbers import share
from pruning.report.schema import ReportWarning
from pruning.spec.agreement import held_metrics

if TYPE_CHECKING:
    from pruning.job import Job, State

SAMPLES = 64
"""Calibration samples that are looked at, evenly spread."""

ENOUGH = 50
"""Evaluation samples from which on an accuracy has to be above chance at the lower end of its
interval; of fewer the interval is too wide to ask for that, and only an accuracy of 0 is told."""

ALIKE = 0.99
"""Agreement or cosine of one answer for all samples from which on a metric is doubtful."""

SUM = 1e-4
"""How far probabilities may be from adding up to one."""

SCORED = ("cross_entropy", "bce", "causal_lm")
"""Losses that take scores, and turn them into probabilities themselves."""


@torch.no_grad()
def check_outputs(job: "Job") -> None:
    """Refuses outputs that loss and metrics can't be taken of, and warns where they tell little.

    Args:
        job: At the dense weights.

    Raises:
        SecateurError: What `loss.check` raises; `metric_meaningless` where a metric that holds the
            result to something is the same for any network.
    """
    spec, calibration = job.spec, job.data.calibration
    outputs, target = _some(job, calibration)
    job.loss.check(outputs, target)
    # Of an upload the plan has said it, as far as it could know.
    said = [] if job.facts is None else check_model(spec, job.facts)
    for warning in check_shape(spec, ["samples", *outputs.shape[1:]]):
        if warning not in said:
            _warn(job, warning)
    _check_probabilities(job, outputs)
    _check_constant(job, outputs)
    aims = job.data.evaluation.target
    if aims is None:
        return
    if spec.objective.needs_labels:
        counted = aims[aims != -100] if spec.objective.loss == "causal_lm" else aims
        classes = 1 if bool((counted == counted[:1]).all()) else None
        for warning in check_classes(spec, classes, "data.evaluation.target"):
            _warn(job, warning)
    else:
        _check_fixed(job, aims)


def at_chance(job: "Job", state: "State") -> list[ReportWarning]:
    """A warning where the dense network is no more accurate than one fixed answer.

    Args:
        job: With the evaluation data.
        state: With the accuracy of every evaluation sample.
    """
    target = job.data.evaluation.target
    if "accuracy" not in job.metrics or target is None:
        return []
    dense = state.each["dense.accuracy"]
    found, guess = float(dense.mean()), job.loss.guessed(target)
    if len(dense) < ENOUGH and found > 0:
        return []
    # Labels that are all the same have a warning of their own.
    if guess == 1.0:
        return []
    held = held_metrics(job.spec).get("accuracy")
    if of_mean(dense)[0] > guess:
        if held is None or not allows(held.drop, found - guess):
            return []
        message = (
            f"Always giving the most frequent answer has an accuracy of {share(guess)} on the "
            f"{len(dense):,} evaluation samples. The dense network has {share(found)}, and a drop "
            f"of {told('accuracy', held.drop)} is allowed: a network that sees nothing passes."
        )
        return [ReportWarning(code="metric_doubtful", message=message, where=f"spec.{held.place}")]
    message = (
        f"The dense network's accuracy is {share(found)} on {len(dense):,} evaluation samples, no "
        f"better than always giving the most frequent answer ({share(guess)}), as far as so many "
        "samples tell. Are the labels in the order of the model's outputs, and the inputs scaled "
        "as in its training? A drop from here says little."
    )
    return [ReportWarning(code="accuracy_at_chance", message=message, where="data.evaluation")]


def check_accuracy(job: "Job", accuracy: float) -> None:
    """Refuses to hold a result to a drop from an accuracy of zero, below which nothing can fall.

    Args:
        job: Its spec says what is held.
        accuracy: Of the dense network.

    Raises:
        SecateurError: `metric_meaningless`.
    """
    held = held_metrics(job.spec).get("accuracy")
    if held is None or accuracy > 0:
        return
    raise SecateurError(
        "metric_meaningless",
        "The dense network's accuracy on the evaluation data is 0, so that no result can be worse.",
        where=f"spec.{held.place}",
        hint="Look whether the labels are in the order of the model's outputs, and the inputs "
        "scaled as in its training.",
    )


def _some(job: "Job", data: ArrayData) -> tuple[Tensor, Tensor | None]:
    count = min(SAMPLES, data.samples)
    some = data.select(torch.linspace(0, data.samples - 1, count, dtype=torch.float64).long())
    inputs, target = next(iter(some.batches(count, device=job.device)))
    return first_output(job.module(*inputs)), target


def _check_probabilities(job: "Job", outputs: Tensor) -> None:
    """Scores become probabilities in the loss; what are probabilities already become them twice."""
    objective = job.spec.objective
    last = _last_layer(outputs.double(), objective.loss == "bce")
    if last is None or (objective.loss not in SCORED and objective.distance != "kl"):
        return
    name = objective.loss if objective.loss in SCORED else "The distance kl"
    taken = "sigmoid" if objective.loss == "bce" else "softmax"
    message = (
        f"The model's outputs look like {'logarithms of ' if last == 'LogSoftmax' else ''}"
        f"probabilities, as after a {last}. {name} takes scores (logits) and applies the {taken} "
        f"itself, so losses and curvature refer to the {taken} of these numbers. Export the model "
        f"without its last {last}."
    )
    hint = f"Export the model without its last {last}, or leave this limit out."
    if objective.loss == "bce" and "accuracy" in job.metrics:
        message += " accuracy takes a score above 0 for yes, and is wrong here."
        _refuse_held(job, "accuracy", message, hint)
    job.warn("outputs_are_probabilities", message, "spec.objective.loss")


def _last_layer(values: Tensor, binary: bool) -> str | None:
    """After which layer the outputs look like probabilities; None where they look like scores.

    Scores that happen to lie between 0 and 1 can't be told from them; equal ones are no sign.
    LogSoftmax changes no softmax of its outputs, and matters to a sigmoid alone.
    """
    if not values.numel() or bool((values == values.flatten()[0]).all()):
        return None
    several = values.ndim > 1 and values.shape[-1] > 1
    if bool(((values >= 0) & (values <= 1)).all()):
        whole = several and bool(((values.sum(-1) - 1.0).abs() < SUM).all())
        return "Softmax" if whole else "Sigmoid"
    if binary and several and bool(((values.exp().sum(-1) - 1.0).abs() < SUM).all()):
        return "LogSoftmax"
    return None


def _check_constant(job: "Job", outputs: Tensor) -> None:
    """A network that puts out the same whatever it sees says nothing of its weights."""
    if len(outputs) < 2 or not bool((outputs == outputs[:1]).all()):
        return
    message = (
        f"The model puts out the same for all {len(outputs)} calibration samples that were looked "
        "at: neither the loss nor a metric on them tells one weight from another."
    )
    hint = (
        "Give data on which the outputs differ; if there are none, the network is dead: look at "
        "its last layers and at how the inputs are scaled."
    )
    for metric in job.metrics:
        _refuse_held(job, metric, message, hint)
    job.warn("outputs_constant", message, "data.calibration")


def _check_fixed(job: "Job", dense: Tensor) -> None:
    """Holds a metric to what a network reaches that gives the same answer whatever it sees.

    A search that such a network passes, with next to nothing between it and the dense one, would
    deliver it.
    """
    if len(dense) < 2:
        return
    held = held_metrics(job.spec)
    for name in job.metrics:
        if name not in FIXED or (name == "agreement" and dense.ndim < 2):
            continue
        found = FIXED[name](dense)
        limit = held.get(name)
        passes = limit is not None and allows(limit.drop, 1.0 - found)
        if found < ALIKE and not passes:
            continue
        message = (
            "A network that always gives the same answer, whatever it sees, can have "
            f"{'an' if name == 'agreement' else 'a'} {name} of {shown(name, found)} with the dense "
            f"one on the {len(dense):,} evaluation samples."
        )
        if limit is not None and passes:
            message += f" A drop of {told(name, limit.drop)} is allowed, so that it passes."
        decides = passes and limit is not None and limit.place != "gates.max_drop"
        if limit is not None and found >= ALIKE and (decides or allows(0.0, 1.0 - found)):
            raise SecateurError(
                "metric_meaningless",
                message,
                where=f"spec.{limit.place}",
                hint="Give evaluation data on which the outputs differ more, allow less, or hold "
                "another metric.",
            )
        _warn(job, ReportWarning(code="metric_doubtful", message=message, where="data.evaluation"))


def _warn(job: "Job", warning: ReportWarning) -> None:
    job.warn(warning.code, warning.message, warning.where)


def _refuse_held(job: "Job", metric: str, message: str, hint: str) -> None:
    """Refuses to let a metric decide that can't tell anything."""
    held = held_metrics(job.spec).get(metric)
    if held is not None:
        raise SecateurError("metric_meaningless", message, where=f"spec.{held.place}", hint=hint)
