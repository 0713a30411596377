"""The report of a finished job, without what only its files can tell."""

import math
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch

from pruning import intervals
from pruning.data.batches import ArrayData
from pruning.job import Job, State
from pruning.output_checks import at_chance
from pruning.registry import method
from pruning.report.numbers import SHARES
from pruning.report.saliency import summarise
from pruning.report.schema import (
    Check,
    Curvature,
    DataRole,
    DataSection,
    Environment,
    LayerReport,
    Loss,
    Metrics,
    MetricValue,
    ModelSection,
    Report,
    ReportWarning,
    Sparsity,
    Substitution,
)
from pruning.report.scope import ScopeSection
from pruning.report.study import Budget
from pruning.schedule import one_shot
from pruning.stopping import CODE, WHERE, words
from pruning.study.points import curve, drops, looks
from pruning.study.study import Study
from pruning.verification import gates

# The report's name of each curvature module.
KINDS = {"full": "ggn_full", "hessian": "hessian_full", "fisher": "empirical_fisher_full"}


def make_report(job: Job, done: Study) -> Report:
    """Everything the loop knows. `sizes`, `artifacts` and `model.sha256` are left out."""
    state = done.answer.state
    total = len(job.weights)
    removed = total - int(state.kept.sum())
    layers = _layers(job, state)
    return Report(
        model=_model(job),
        data=_data(job),
        spec=job.spec,
        seed=job.spec.seed,
        sparsity=Sparsity(
            target=job.spec.target.sparsity,
            achieved=removed / total,
            removed=removed,
            total=total,
            found=sum(job.existing.found),
        ),
        scope=_scope(job, removed),
        layers=layers,
        loss=_loss(job, state),
        metrics=_metrics(job, state),
        rounds=state.rounds,
        stopped=state.stopped,
        curve=curve(job, done),
        budget=_budget(job, state),
        search=done.search,
        comparison=done.comparison,
        layer_outputs=state.layer_outputs,
        damping_sweep=state.sweep,
        curvature=_curvature(job, state),
        substitutions=_substitutions(job, state),
        warnings=[
            *job.warnings,
            *at_chance(job, state),
            *_stopped(state),
            *_without_curvature(state, job.existing.removed),
            *_not_predicted(state),
            *_notes(state),
            *_gates_of_files(job),
        ],
        checks=[*_gates(job, state, layers), *state.trust_checks],
        trust=state.trust,
        timings=dict(job.narrator.timings),
        environment=_environment(job),
    )


def _model(job: Job) -> ModelSection:
    if job.facts is not None:
        return ModelSection(
            format=job.facts.format,
            parameters=job.facts.parameters,
            prunable_parameters=job.facts.prunable_parameters,
        )
    return ModelSection(
        format="module",
        parameters=sum(p.numel() for p in job.module.parameters()),
        prunable_parameters=sum(p.weight.numel() for p in job.layers),
    )


def _scope(job: Job, removed: int) -> ScopeSection:
    found = job.scope
    found.removed_of_all = removed / found.weights
    return found


def _data(job: Job) -> DataSection:
    data = job.data

    def role(part: ArrayData, source: str) -> DataRole:
        return DataRole.model_validate({"samples": part.samples, "source": source})

    return DataSection(
        calibration=role(data.calibration, "given"),
        training=role(
            data.training, "calibration" if data.training is data.calibration else "given"
        ),
        evaluation=role(data.evaluation, "held_out" if data.held_out else "given"),
    )


def _layers(job: Job, state: State) -> list[LayerReport]:
    in_scope = {
        layer.name: (kept.flatten(), saliency.flatten(), predicted)
        for (layer, kept), (_, saliency), predicted in zip(
            job.weights.by_layer(state.kept),
            job.weights.by_layer(state.saliency),
            state.predicted_by_layer,
            strict=True,
        )
    }
    errors = {o.layer: o.relative_error for o in state.layer_outputs}
    found = {p.name: n for p, n in zip(job.weights.layers, job.existing.found, strict=True)}
    reports = []
    for layer in job.layers:
        zeros = int((layer.weight == 0).sum())
        report = LayerReport(
            name=layer.label,
            layer=None if layer.label == layer.layer else layer.layer,
            kind=layer.kind,
            shape=list(layer.weight.shape),
            parameters=layer.weight.numel(),
            zeros=zeros,
            sparsity=zeros / layer.weight.numel(),
            in_scope=layer.name in in_scope,
        )
        if report.in_scope:
            kept, saliency, predicted = in_scope[layer.name]
            gone = ~kept.cpu().numpy()
            report.removed = int(gone.sum())
            report.found = found[layer.name]
            report.saliency, report.saliency_histogram = summarise(saliency.cpu().numpy(), gone)
            report.predicted_loss_increase = predicted
            report.output_error = errors.get(layer.name)
        reports.append(report)
    return reports


def _notes(state: State) -> list[ReportWarning]:
    """What the walk from layer to layer did otherwise than planned, and how recovery ended."""
    return [
        ReportWarning(
            code="recovery_note" if note.startswith("Recovery") else "layerwise_note", message=note
        )
        for note in state.notes
    ]


def _loss(job: Job, state: State) -> Loss:
    """Totals are sums over the steps: what the removals cost, without what recovery won back.

    Without recovery in between, the measured sum is the pruned loss minus the dense loss.
    """
    last = state.rounds[-1] if state.rounds else None
    # Losses before and after alternate in sign, so that fsum rounds once.
    ends = [r.loss_pruned for r in state.rounds] + [-(r.loss_before or 0.0) for r in state.rounds]
    own = [r.criterion_predicted_increase for r in state.rounds]
    return Loss(
        dense=state.dense.loss,
        pruned=state.dense.loss if last is None else last.loss_pruned,
        recovered=None if last is None else last.loss_recovered,
        predicted_increase=_sum([r.predicted_increase for r in state.rounds]),
        measured_increase=_sum(ends),
        criterion_predicted_increase=_sum(own),
    )


def _sum(values: list[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return math.fsum(known) if len(known) == len(values) else None


def _budget(job: Job, state: State) -> Budget | None:
    """What the target's limit came to, and how much of it the weights that stay take."""
    if job.budget is None:
        return None
    kept = [int(part.sum()) for part in job.weights.split(state.kept)]
    values = {"limit": int(job.budget.limit), "remaining": round(job.budget.of(kept))}
    return Budget.model_validate({"kind": job.budget.kind, **values})


def _metrics(job: Job, state: State) -> Metrics:
    def stage(name: str) -> dict[str, MetricValue]:
        found = {}
        for metric in job.metrics:
            values = state.each[f"{name}.{metric}"]
            low, high = intervals.of_mean(values, shares=metric in SHARES)
            value = float(values.mean())
            found[metric] = MetricValue(value=value, low=low, high=high, samples=len(values))
        return found

    recovered = state.recovered_metrics is not None
    return Metrics(
        dense=stage("dense"),
        pruned=stage("pruned"),
        recovered=stage("recovered") if recovered else None,
        drops=drops(state, job.metrics, looks(job.spec)),
    )


def _curvature(job: Job, state: State) -> Curvature:
    criterion: Any = job.spec.criterion
    request = method("criteria", criterion.kind).curvature(criterion, len(job.weights))
    if request is None:
        return Curvature(kind="none", weights=len(job.weights), samples=0)
    return Curvature(
        kind=KINDS.get(request.kind, request.kind),
        weights=len(job.weights),
        samples=request.samples(job.data.calibration.samples),
        block=request.parameters.get("block"),
        damping=state.rounds[-1].damping if state.rounds else None,
        general_path=state.general,
    )


def _substitutions(job: Job, state: State) -> list[Substitution]:
    criterion: Any = job.spec.criterion
    made: list[Substitution] = []
    if getattr(criterion, "inverse", None) == "auto":
        made.append(
            Substitution(
                where="spec.criterion.inverse",
                asked="auto",
                used=criterion.resolve(len(job.weights)),
                reason=f"{len(job.weights)} weights in scope",
            )
        )
    made += one_shot.substitution(job.spec)
    compensation: Any = job.spec.compensation
    if getattr(compensation, "solver", None) == "auto":
        made.append(
            Substitution(
                where="spec.compensation.solver",
                asked="auto",
                used=compensation.resolve(),
                reason="the least error for its time",
            )
        )
    for name, part in (("criterion", criterion), ("compensation", compensation)):
        if getattr(part, "damping", None) == "auto":
            made.append(
                Substitution(
                    where=f"spec.{name}.damping",
                    asked="auto",
                    used=", ".join(f"{r.damping:g}" for r in state.rounds if r.damping is not None),
                    reason="lowest loss on a held-out share of the calibration data, step by step",
                )
            )
    return made


def _stopped(state: State) -> list[ReportWarning]:
    if state.stopped is None:
        return []
    return [ReportWarning(code=CODE, message=words(state.stopped), where=WHERE)]


def _without_curvature(state: State, found: int) -> list[ReportWarning]:
    """One warning for all steps in which weights without curvature were left; the first is told."""
    steps = [r for r in state.rounds if r.without_curvature]
    if not steps:
        return []
    first, total = steps[0], len(state.kept) - found
    left = total - sum(r.removed for r in state.rounds[: first.index - 1])
    later = f" So it was in later steps, {len(steps) - 1} of them." if len(steps) > 1 else ""
    message = (
        f"In step {first.index}, {first.without_curvature} of the {left} weights left had no "
        "curvature: on the calibration data the loss does not depend on them, as when a layer or "
        f"unit was removed as a whole.{later} They count as free to remove, the first in position "
        "go first, and no other weight makes up for them. If a whole layer is gone, use "
        "allocation: {kind: uniform}, a lower sparsity, or exclude the last layer."
    )
    return [ReportWarning(code="without_curvature", message=message, where="spec.criterion")]


def _not_predicted(state: State) -> list[ReportWarning]:
    reasons = [r.not_predicted for r in state.rounds if r.not_predicted]
    if not reasons:
        return []
    message = f"The increase of the loss could not be predicted, only measured. {reasons[0]}"
    return [ReportWarning(code="not_predicted", message=message, where="loss")]


def _gates(job: Job, state: State, layers: list[LayerReport]) -> list[Check]:
    """The gates that need no file."""
    final = state.pruned_metrics if state.recovered_metrics is None else state.recovered_metrics
    return [
        *gates.drops(job.spec, state.dense_metrics, final),
        *gates.layer_sparsity(job.spec, layers),
    ]


def _gates_of_files(job: Job) -> list[ReportWarning]:
    """A module in memory has no files, so that nothing can be held to the gates on them."""
    asked = [name for name in ("max_bytes", "latency") if getattr(job.spec.gates, name)]
    if job.facts is not None or not asked:
        return []
    message = (
        f"gates.{' and gates.'.join(asked)} hold files to a limit, and a module in memory has "
        "none: they were not checked."
    )
    return [ReportWarning(code="gate_not_checked", message=message, where="spec.gates")]


def _environment(job: Job) -> Environment:
    cuda = job.device.type == "cuda"
    return Environment(
        secateur=_version("secateur") or "unknown",
        python=platform.python_version(),
        torch=torch.__version__,
        numpy=np.__version__,
        onnx=_version("onnx") if job.facts is not None and job.facts.format == "onnx" else None,
        platform=platform.platform(),
        threads=torch.get_num_threads(),
        device=f"cuda ({torch.cuda.get_device_name(job.device)})" if cuda else "cpu",
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
