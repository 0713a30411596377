"""Dynamic programming over the layers' ladders against a budget of weights, FLOPs or time.

Which rung each layer stops at, so that the increases add up to the least while what is saved
reaches the budget (as Frantar and Alistarh 2022b, SPDY, for latency). Ladders need not be convex.
"""

from math import ceil

import numpy as np
from numpy.typing import NDArray

from pruning.allocation import Layers
from pruning.allocation.ladder import Ladder
from pruning.spec import SearchAllocation

UNITS = 4_000
"""Steps that the budget is cut into."""

_Whole = NDArray[np.int64]

RUNGS = 60
"""Sparsities tried a layer, evenly spaced, beside the ladder's own rungs."""


def quotas(options: SearchAllocation, layers: Layers, target: int) -> list[float]:
    """Counts whose worth is the share target / total of the budget's whole.

    Args:
        options: `budget` says in what.
        layers: With ladders.
        target: The share of all weights in scope that it stands for is that of the budget.
    """
    if layers.ladders is None or layers.prices is None:
        raise ValueError("search needs the layers' ladders and prices")
    prices, sizes = layers.prices(options.budget), layers.sizes
    whole = sum(p * n for p, n in zip(prices, sizes, strict=True))
    found = cheapest(layers.ladders(), prices, whole * target / sum(sizes))
    return [float(k) for k in found]


def cheapest(ladders: list[Ladder], prices: list[float], saved: float) -> list[int]:
    """How many weights of each layer go, so that at least `saved` of the budget is saved.

    Args:
        ladders: Increase of the loss by weights removed.
        prices: What one weight of each layer saves.
        saved: At most what all of them save together.

    Returns:
        Counts, whose savings exceed `saved` by less than the price of one weight.
    """
    unit = saved / UNITS
    if unit <= 0.0:
        return [0] * len(ladders)
    best = np.full(UNITS + 1, np.inf)
    best[0] = 0.0
    trail: list[tuple[list[int], _Whole, _Whole]] = []
    for ladder, price in zip(ladders, prices, strict=True):
        counts = _rungs(ladder)
        after = np.full(UNITS + 1, np.inf)
        rungs, before = np.zeros(UNITS + 1, np.int64), np.zeros(UNITS + 1, np.int64)
        for rung, count in enumerate(counts):
            # Rounded to the nearest unit: the rest is settled weight by weight at the end.
            step = min(UNITS, int(count * price / unit + 0.5))
            reached, origin = np.full(UNITS + 1, np.inf), np.arange(UNITS + 1) - step
            reached[step:] = best[: UNITS + 1 - step]
            # Whatever saves more than the budget counts as the budget.
            origin[UNITS] = UNITS - step + int(best[UNITS - step :].argmin())
            reached[UNITS] = best[origin[UNITS]]
            reached += ladder.at(count)
            better = reached < after
            after[better], rungs[better], before[better] = reached[better], rung, origin[better]
        trail.append((counts, rungs, before))
        best = after
    at, found = UNITS, []
    for counts, rungs, before in reversed(trail):
        found.append(counts[int(rungs[at])])
        at = int(before[at])
    return _settle(ladders, prices, saved, found[::-1])


def _rungs(ladder: Ladder) -> list[int]:
    even = (round(ladder.removed[-1] * i / RUNGS) for i in range(RUNGS + 1))
    return sorted({*ladder.removed, *even})


def _settle(
    ladders: list[Ladder], prices: list[float], saved: float, counts: list[int]
) -> list[int]:
    """Add weights where they cost least a unit saved, or spare them where they cost most."""

    def slope(number: int, step: int) -> float:
        ladder, count = ladders[number], counts[number]
        return (ladder.at(count + step) - ladder.at(count)) / (step * prices[number])

    numbers = range(len(ladders))
    while True:
        lack = saved - sum(p * k for p, k in zip(prices, counts, strict=True))
        chunk = {n: max(1, ceil(abs(lack) / prices[n] / 8.0)) for n in numbers}
        if lack > 0:
            room = {n: min(chunk[n], ladders[n].removed[-1] - counts[n]) for n in numbers}
            open_ = [n for n in numbers if room[n] > 0]
            if not open_:
                return counts
            cheapest_ = min(open_, key=lambda n: (slope(n, room[n]), n))
            counts[cheapest_] += room[cheapest_]
            continue
        spare = {n: min(chunk[n], counts[n], int(-lack / prices[n])) for n in numbers}
        open_ = [n for n in numbers if spare[n] > 0]
        if not open_:
            return counts
        dearest = max(open_, key=lambda n: (slope(n, -spare[n]), -n))
        counts[dearest] -= spare[dearest]
