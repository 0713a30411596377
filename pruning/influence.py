"""Whether samples influence each other, told from results of the same ones in several batches.

The one rule for a trial while a file is read (`pruning.formats.trial`) and for a job's own data
(`pruning.samples`).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

Order = list[int]
"""Which samples are run together, by their numbers."""

DIFFERENT = 4
"""Samples that the orders of a free batch size choose from."""

_UNITS = 128


def orders(samples: int, batch: int | None = None) -> list[Order]:
    """Batches in which an influence between samples shows.

    Each sample comes in different company, and whichever of them decides a result over the whole
    batch (its largest number, say) is missing from a batch that shares a sample with one that has
    it. With a free batch size the batches differ in length, which shows where results hold the
    samples.

    Args:
        samples: How many there are; with few of them, some are run beside themselves.
        batch: The only number that can be run together; None for any.
    """
    if batch == 1:
        return [[0]]
    if batch is not None:
        found = [
            [*range(batch)],
            [batch, *range(batch - 1, 0, -1)],
            [0, *range(batch + 1, 2 * batch)],
        ]
    elif samples < DIFFERENT:
        found = [[0, 1], [2, 1, 0], [0, 0], [1, 1], [2, 2]]
    else:
        found = [[0, 1], [3, 2, 1], [0, 2]]
    return [[number % samples for number in order] for order in found]


def apart(tries: Sequence[tuple[Tensor, Order]], axis: int) -> bool:
    """Whether each sample has the same result in every batch that it was run in.

    Args:
        tries: Results with the samples of each, as many along the axis.
        axis: Where they lie.
    """
    placed = [result.movedim(axis, 0) for result, _ in tries]
    if len({result.shape[1:] for result in placed}) > 1:
        return False
    spread = _spread(placed)
    seen: dict[int, Tensor] = {}
    for result, (_, order) in zip(placed, tries, strict=True):
        for found, sample in zip(result, order, strict=True):
            if not close(seen.setdefault(sample, found), found, spread):
                return False
    return True


def close(a: Tensor, b: Tensor, spread: float | None = None) -> bool:
    """Whether results are the same but for rounding.

    Batches of different sizes are added up in different orders, layer after layer: a difference is
    rounding up to 4 times the square root of the type's precision, of how far samples lie apart,
    and some units in the last place of the largest number. A result that hardly depends on the
    sample would else hide what other samples do to it behind its size.

    Args:
        a: Real numbers, or others, which have to be equal.
        b: The same of another run.
        spread: How far samples lie apart; the largest number where left out.
    """
    if a.shape != b.shape:
        return False
    if not a.is_floating_point():
        return torch.equal(a, b)
    finite = torch.isfinite(a)
    if not torch.equal(finite, torch.isfinite(b)):
        return False
    first, second = a[finite].double(), b[finite].double()
    if not first.numel():
        return True
    precision, largest = torch.finfo(a.dtype).eps, float(first.abs().max())
    allowed = 4 * precision**0.5 * (largest if spread is None else spread)
    return float((first - second).abs().max()) <= allowed + _UNITS * precision * largest


def _spread(results: Sequence[Tensor]) -> float | None:
    """The largest distance between numbers in the same place of two samples, samples first."""
    if not results[0].is_floating_point():
        return None
    every = torch.cat([result.double() for result in results])
    gaps = (every.amax(0) - every.amin(0)).flatten()
    gaps = gaps[torch.isfinite(gaps)]
    return float(gaps.max()) if gaps.numel() else 0.0
