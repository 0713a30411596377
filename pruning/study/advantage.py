"""By how much one criterion's runs were better than another's, with an interval, in plain words."""

from dataclasses import dataclass, field
from math import hypot
from statistics import NormalDist, fmean, median, stdev
from typing import Literal

from torch import Tensor

from pruning import intervals
from pruning.report.numbers import SHARES, points, several
from pruning.report.study import Difference

SPREAD = 3
"""Seeds from which on their spread tells something."""


@dataclass(frozen=True)
class Finding:
    """What one run came to.

    Args:
        loss: On the calibration data; None if the run failed.
        metrics: On the evaluation data.
        each: The same of every evaluation sample, shape [N] each.
        error: Why it failed.
    """

    loss: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    each: dict[str, Tensor] = field(default_factory=dict)
    error: str | None = None


def differences(
    own: str,
    other: str,
    found: list[tuple[Finding, Finding]],
    metrics: tuple[str, ...],
    *,
    recovered: bool,
) -> list[Difference]:
    """The job's own criterion against another: each metric, and the loss where it says something.

    Args:
        own: Name of the job's own criterion.
        other: Name of the other one.
        found: What they came to (own, other), for each seed.
        metrics: Names of the metrics, the larger the better.
        recovered: Whether with recovery.
    """
    pairs = [(a, b) for a, b in found if a.error is None and b.error is None]
    told = [_of_metric(own, other, name, pairs, recovered=recovered) for name in metrics if pairs]
    if not metrics or len(pairs) >= SPREAD:
        told.append(_of_loss(own, other, pairs, recovered=recovered))
    if pairs:
        return told
    failed = next((name, f.error) for pair in found for name, f in zip((own, other), pair,
                  strict=True) if f.error is not None)  # fmt: skip
    message = f"{failed[0]} could not be run at this sparsity: {failed[1]}"
    quantity = metrics[0] if metrics else "loss"
    return [_told(other, quantity, None, None, recovered=recovered, message=message)]


def _of_metric(
    own: str, other: str, name: str, pairs: list[tuple[Finding, Finding]], *, recovered: bool
) -> Difference:
    """Interval of the mean advantage: evaluation samples are drawn, and so are the seeds.

    The half-width over the pairs of samples is the mean of those of the seeds, all of which look at
    the same samples, so that it does not shrink with their number; from three seeds on Student's
    interval over the seeds is added to it as to independent errors.
    """
    gaps = [intervals.drop(a.each[name], b.each[name], shares=name in SHARES) for a, b in pairs]
    values = [g.value or 0.0 for g in gaps]
    value = median(values)
    bounds = [(g.low, g.high) for g in gaps if g.low is not None and g.high is not None]
    if len(bounds) < len(gaps):  # of one sample
        return _described(own, other, name, value, None, len(pairs), recovered=recovered)
    centre = fmean((low + high) / 2 for low, high in bounds)
    half = hypot(fmean((high - low) / 2 for low, high in bounds), _seeds(values))
    ends = (min(value, centre - half), max(value, centre + half))
    return _described(own, other, name, value, ends, len(pairs), recovered=recovered)


def _of_loss(
    own: str, other: str, pairs: list[tuple[Finding, Finding]], *, recovered: bool
) -> Difference:
    values = [b.loss - a.loss for a, b in pairs if a.loss is not None and b.loss is not None]
    value = median(values) if values else None
    ends = None
    if value is not None and len(values) >= SPREAD:
        half = _seeds(values)
        ends = (min(value, fmean(values) - half), max(value, fmean(values) + half))
    return _described(own, other, "loss", value, ends, len(values), recovered=recovered)


def _seeds(values: list[float]) -> float:
    """Half of Student's interval of a mean; 0 for fewer seeds than `SPREAD`."""
    n = len(values)
    return student(n - 1) * stdev(values) / n**0.5 if n >= SPREAD else 0.0


def student(freedom: int) -> float:
    """The quantile of Student's t that 95 % lie within, to 1 % from two degrees of freedom on.

    Expansion in the normal quantile (Abramowitz and Stegun 1964, 26.7.5).
    """
    z, v = NormalDist().inv_cdf((1 + intervals.LEVEL) / 2), freedom
    return (
        z
        + (z**3 + z) / (4 * v)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * v**4)
    )


def _described(
    own: str,
    other: str,
    quantity: str,
    value: float | None,
    ends: tuple[float, float] | None,
    seeds: int,
    *,
    recovered: bool,
) -> Difference:
    if value is None or ends is None:
        message = (
            f"{several(seeds, 'run')} of each can't show whether {own} or {other} has the better "
            f"{quantity}, for it may be chance. comparison.seeds: {SPREAD} or more would tell."
        )
        return _told(other, quantity, value, None, recovered=recovered, message=message)
    low, high = ends
    shown = f"{_amount(quantity, value)}, interval {_number(quantity, low)} to " + _number(
        quantity, high
    )
    over = f" over {seeds} seeds" if seeds > 1 else ""
    if low > 0:
        message = f"{own} was better than {other} here: {shown}{over}."
    elif high < 0:
        message = f"{other} was better than {own} here: {shown}{over}."
    else:
        message = f"{other} was as good as {own} here: {shown}{over}."
    return _told(other, quantity, value, ends, recovered=recovered, message=message)


def _told(
    other: str,
    quantity: str,
    value: float | None,
    ends: tuple[float, float] | None,
    *,
    recovered: bool,
    message: str,
) -> Difference:
    verdict: Literal["better", "as_good", "worse", "unknown"] = "unknown"
    if ends is not None:
        verdict = "better" if ends[0] > 0 else "worse" if ends[1] < 0 else "as_good"
    return Difference(
        against=other,
        recovered=recovered,
        quantity=quantity,
        value=value,
        low=None if ends is None else ends[0],
        high=None if ends is None else ends[1],
        verdict=verdict,
        message=message,
    )


def _number(quantity: str, value: float) -> str:
    return points(quantity, value, unit=False)


def _amount(quantity: str, value: float) -> str:
    number = _number(quantity, value)
    sign = "" if number.startswith("-") or float(number) == 0 else "+"
    unit = f"points of {quantity}" if quantity in SHARES else f"in {quantity}"
    return f"{sign}{number} {unit}"
