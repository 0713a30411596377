"""Confidence intervals of means over samples, and of differences by pairs."""

from collections.abc import Sequence
from math import inf

import numpy as np
from torch import Tensor

from pruning.report.study import Drop
from pruning.study.chance import LEVEL, quantile


def of_mean(values: Tensor, *, shares: bool = True) -> tuple[float, float]:
    """The 95 % interval of a mean: Wilson's (1927) for zeros and ones, else the normal one.

    Args:
        values: Of each sample, shape [N], float64.
        shares: Whether zeros and ones are wrong and right answers; a cosine may be 1 without.
    """
    n, mean, z = len(values), float(values.mean()), quantile()
    if shares and _binary(values):
        centre = (mean + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * (mean * (1 - mean) / n + z * z / (4 * n * n)) ** 0.5
        return max(0.0, centre - half), min(1.0, centre + half)
    half = z * (float(values.var(correction=1)) / n) ** 0.5 if n > 1 else float("inf")
    return mean - half, mean + half


def drop(dense: Tensor, final: Tensor, simultaneous: int = 1, *, shares: bool = True) -> Drop:
    """How far a metric fell, with its interval over the pairs.

    For zeros and ones half a pair is added to each cell of the 2 x 2 table (Agresti and Min 2005),
    which keeps the interval honest where hardly any sample changed sides. Of other values it is the
    normal one, without ends for a single sample.

    Args:
        dense: Of each sample before, shape [N], float64.
        final: Of the same samples after, shape [N].
        simultaneous: How many such intervals shall hold at once (Bonferroni).
        shares: As for `of_mean`.
    """
    gap = dense - final
    n, total, squares = len(gap), float(gap.sum()), float(gap.square().sum())
    if shares and _binary(dense) and _binary(final):
        n, squares = n + 2, squares + 1.0
        variance = max(0.0, squares / n - (total / n) ** 2)
    else:
        variance = float(gap.var(correction=1)) if n > 1 else inf
    half, value = quantile(simultaneous) * (variance / n) ** 0.5, float(gap.mean())
    return Drop(
        value=value,
        low=min(value, total / n - half),
        high=max(value, total / n + half),
        level=LEVEL,
        simultaneous=simultaneous,
        samples=len(gap),
    )


def of_median(values: Sequence[float] | np.ndarray) -> tuple[float, float] | None:
    """The 95 % interval of a median, whatever the distribution: two order statistics.

    As many values lie below the median as a fair coin shows heads, so the k-th smallest and the
    k-th largest enclose it but for twice P[B(n, 1/2) < k] (Conover 1999, section 3.2).

    Args:
        values: Independent draws.

    Returns:
        The ends; None for fewer than 6 values, which enclose it with less than 95 %.
    """
    ordered = np.sort(np.asarray(values, np.float64))
    n, k = len(ordered), 0
    outcomes, tail, term = 2**n, 0, 1
    while 2 * (tail + term) / outcomes <= 1.0 - LEVEL:
        tail, k = tail + term, k + 1
        term = term * (n - k + 1) // k
    return None if k == 0 else (float(ordered[k - 1]), float(ordered[n - k]))


def _binary(values: Tensor) -> bool:
    return bool(((values == 0.0) | (values == 1.0)).all())
