"""From values to places on paper: the scales of a plot's axes, and their ticks."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pruning.report.numbers import asked, asked_share, exponent

Tick = tuple[float, str]
"""A value and what is written at it."""


def power_of_ten(value: float) -> str:
    """0.0001 as 1e-4, numbers near one as they are."""
    return asked(value) if 1e-3 <= value < 1e6 else exponent(value, 0)


@dataclass(frozen=True)
class Scale:
    """A linear or logarithmic axis.

    Args:
        low: The value at its beginning; above `high` where the axis runs backwards.
        high: The value at its end.
        ticks: Values with their labels.
        log: Whether equal factors are equal distances.
        kept: Whether these are factors of what a share leaves, 1 - value.
    """

    low: float
    high: float
    ticks: tuple[Tick, ...] = ()
    log: bool = False
    kept: bool = False

    def share(self, value: float) -> float:
        """Where a value lies: 0 at the beginning, 1 at the end, held within a little beyond."""
        low, high = self.low, self.high
        if self.kept:
            low, high, value = 1.0 - low, 1.0 - high, 1.0 - value
        if self.log:
            tiny = min(low, high) * 1e-9
            low, high, value = (math.log(max(v, tiny)) for v in (low, high, value))
        return min(1.5, max(-0.5, (value - low) / (high - low)))


def linear(
    values: Sequence[float],
    label: Callable[[float], str] = asked,
    *,
    most: int = 5,
    within: tuple[float, float] = (-math.inf, math.inf),
    margin: float = 0.06,
    whole: bool = False,
) -> Scale:
    """An axis around values, its ticks at multiples of 1, 2, 2.5 or 5 times a power of ten.

    Args:
        values: At least one, finite.
        label: What is written at a tick.
        most: The most ticks.
        within: What the axis must not leave.
        margin: Room on both sides, as a share of the range.
        whole: Whether ticks stand at whole numbers alone.
    """
    low, high = min(values), max(values)
    room = (high - low) * margin or abs(high) * 0.1 or 1.0
    low, high = max(within[0], low - room), min(within[1], high + room)
    if not low < high:
        low, high = low - 0.5, high + 0.5
    step = _step((high - low) / most)
    if whole and step % 1:
        step = 1.0 if step < 1 else 2.0 * step
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return Scale(low, high, tuple((i * step, label(i * step)) for i in range(first, last + 1)))


def _step(least: float) -> float:
    power = 10.0 ** math.floor(math.log10(least))
    return next(m * power for m in (1.0, 2.0, 2.5, 5.0, 10.0) if m * power >= least * (1 - 1e-9))


def logarithmic(values: Sequence[float], *, most: int = 6, margin: float = 0.05) -> Scale:
    """An axis around positive values; ticks at powers of ten, at 1, 2 and 5 where these are few.

    Args:
        values: At least one, positive and finite.
        most: About the most ticks.
        margin: Room on both sides, as a share of the logarithmic range.
    """
    low, high = math.log10(min(values)), math.log10(max(values))
    room = (high - low) * margin or 0.3
    low, high = max(-307.0, low - room), min(308.0, high + room)
    if high - low > 2.0:
        every = max(1, math.ceil((high - low) / most))
        powers = [p for p in range(math.ceil(low), math.floor(high) + 1) if p % every == 0]
        ticks = [10.0**p for p in powers]
    else:
        within = range(math.floor(low), math.floor(high) + 1)
        ticks = [m * 10.0**p for p in within for m in (1.0, 2.0, 5.0)]
        ticks = [t for t in ticks if low <= math.log10(t) <= high]
    if len(ticks) < 2:
        ticks = [10.0**low, 10.0**high]
        return Scale(ticks[0], ticks[1], tuple((t, power_of_ten(t)) for t in ticks), log=True)
    return Scale(10.0**low, 10.0**high, tuple((t, power_of_ten(t)) for t in ticks), log=True)


_KEPT = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)


def of_sparsity(values: Sequence[float]) -> Scale:
    """An axis of sparsities; by the logarithm of what is kept where the last per cents count.

    From 90 to 95 % halves a network as from 50 to 75 % does, and so gets the same room.

    Args:
        values: Shares removed, each below 1.
    """
    kept = [1.0 - v for v in values]
    low, high = min(kept), max(kept)
    if low <= 0 or high / low < 4:
        return linear(values, asked_share, within=(0.0, 1.0))
    low, high = low / 1.15, min(1.0, high * 1.15)
    ticks: list[Tick] = []
    for share in _KEPT:
        distance = math.log(ticks[-1][0] / share) if ticks else math.inf
        if low <= share <= high and distance > math.log(high / low) / 7:
            ticks.append((share, asked_share(1.0 - share)))
    places = tuple((1.0 - share, label) for share, label in ticks)
    return Scale(1.0 - high, 1.0 - low, places, log=True, kept=True)
