"""What the report says in words: the verdict, and numbers as people read them."""

import math
import shlex
from typing import Any

from pruning.catalogue import criteria
from pruning.report.schema import MetricValue, Report

NONE = "\u2013"
"""Shown where there is no number."""


def visible(text: str) -> str:
    """Text without control characters and marks that turn its direction; line breaks stay."""
    return "".join(c if c.isprintable() or c in "\n\u00a0" else "\ufffd" for c in text)


def clean(text: str, limit: int = 60) -> str:
    """A name from a model on one line, the middle cut out where it is long."""
    shown = visible(text.replace("\n", "\ufffd"))
    half = (limit - 1) // 2
    return shown if len(shown) <= limit else f"{shown[:half]}…{shown[-half:]}"


def share(value: float | None, digits: int = 2) -> str:
    """0.9312 as 93.12 %."""
    return NONE if value is None else f"{100 * value:.{digits}f}\u00a0%"


def number(value: float | None) -> str:
    """Four significant digits."""
    return NONE if value is None else f"{value:.4g}".replace("-", "\u2212")


def count(value: int) -> str:
    """1234567 as 1,234,567."""
    return f"{value:,}"


def size(value: int | None) -> str:
    """Bytes in the unit that gives one to four digits before the point."""
    if value is None:
        return NONE
    if value < 1024:
        return f"{value}\u00a0B"
    power = min(int(math.log2(value) // 10), 4)
    return f"{value / 1024**power:.1f}\u00a0{('KiB', 'MiB', 'GiB', 'TiB')[power - 1]}"


def interval(metric: MetricValue) -> str:
    """95 % interval of an accuracy from its sample size (Wilson 1927), in percent."""
    if metric.value is None or metric.samples < 1:
        return NONE
    p, n, z = metric.value, metric.samples, 1.96
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return f"{100 * (middle - half):.1f}\u2013{100 * (middle + half):.1f}\u00a0%"


def rejected(report: Report) -> list[str]:
    """The messages of the gates that were missed."""
    return [c.message for c in report.checks if is_gate(c.name) and c.status == "fail"]


def is_gate(check: str) -> bool:
    """Whether a check is a gate of the spec."""
    return check.startswith("max_drop.")


def verdict(report: Report) -> str:
    """One sentence: what was removed, and what became of the metrics."""
    sparsity = report.sparsity
    criterion: Any = report.spec.criterion
    method = criteria()[criterion.kind].about.title
    removed = (
        f"{method} removed {count(sparsity.removed)} of {count(sparsity.total)} weights "
        f"({share(sparsity.achieved, 1)})"
    )
    for name, dense in report.metrics.dense.items():
        pruned = report.metrics.pruned.get(name)
        if dense.value is None or pruned is None:
            continue
        text = f"{removed}; {name} went from {share(dense.value)} to {share(pruned.value)}"
        recovered = (report.metrics.recovered or {}).get(name)
        return text + (f", and to {share(recovered.value)} after recovery." if recovered else ".")
    final = report.loss.pruned if report.loss.recovered is None else report.loss.recovered
    return f"{removed}; the loss went from {number(report.loss.dense)} to {number(final)}."


def prediction(report: Report) -> str:
    """How the predicted increase of the loss compares with the measured one."""
    predicted, measured = report.loss.predicted_increase, report.loss.measured_increase
    if measured is not None and any(r.not_predicted for r in report.rounds):
        return (
            f"The removals raised the calibration loss by {number(measured)} in all, which was not "
            "predicted."
        )
    if predicted is None or measured is None:
        return "The loss increase could not be compared: a value is not finite."
    text = (
        f"The removals raised the calibration loss by {number(measured)} in all; the quadratic "
        f"model predicted {number(predicted)}."
    )
    if measured <= 0:
        return text
    if predicted <= 0:
        return f"{text} The step left the region where a quadratic model holds."
    factor = measured / predicted
    if 0.5 <= factor <= 2:
        return f"{text} That is within a factor of two{_cancelled(report, measured)}."
    times = f"{factor:.3g} times as much as" if factor > 1 else f"{1 / factor:.3g} times less than"
    return (
        f"{text} Measured is {times} predicted: the step was too large for a quadratic model, "
        "and its numbers say at most what comes before what."
    )


def matrix(report: Report) -> str:
    """The H of the quadratic model, in words."""
    if any(r.matrix == "gauss_newton" for r in report.rounds):
        return "undamped Gauss-Newton matrix, as this network has no second derivatives"
    return "undamped exact Hessian of the calibration loss"


def times(report: Report) -> str:
    """Seconds a phase, each followed by what parts of it took."""
    shown = []
    for phase, seconds in report.timings.items():
        if "." in phase:
            continue
        parts = [
            f"{name.partition('.')[2]} {spent:.2f} s"
            for name, spent in report.timings.items()
            if name.startswith(f"{phase}.")
        ]
        within = f" (of which {', '.join(parts)})" if parts else ""
        shown.append(f"{phase} {seconds:.2f} s{within}")
    return ", ".join(shown)


def _cancelled(report: Report, measured: float) -> str:
    """A remark where sums agree because single steps missed in both directions."""
    pairs = [(r.predicted_increase, r.measured_increase) for r in report.rounds]
    missed = sum(abs(p - m) for p, m in pairs if p is not None and m is not None)
    return ", though single steps missed by more and cancel" if missed > measured else ""


def reproduce(report: Report) -> str:
    """The command that runs the same job again, given the spec in spec.yaml."""
    words = ["secateur", "prune", report.model.name or "MODEL"]
    for role in ("calibration", "training", "evaluation"):
        part = getattr(report.data, role)
        if part.source == "given" and (role == "calibration" or part.name):
            flag = "--data" if role == "calibration" else f"--{role}"
            words += [flag, part.name or "DATA"]
    return " ".join(shlex.quote(w) for w in [*words, "--spec", "spec.yaml", "--local"])
