"""How sparsity is shared among layers.

The module of a kind has `quotas(options, layers, target)`: how many weights of each layer shall be
gone in all once `target` of them are, as real numbers that add up to it; or None for one threshold
over the whole network. `options` is the spec's part, `layers` what may be looked at.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pruning.allocation.ladder import Ladder

__all__ = ["Layers", "lacking", "largest_remainder", "split"]


@dataclass(frozen=True)
class Layers:
    """The layers in scope, L of them; what costs work is a function and called once at most.

    Args:
        shapes: Shape of each weight, in torch's layout.
        outliers: From a threshold M, the share of each layer's weights whose |w| |x| exceeds M
            times the layer's mean.
        ladders: What each layer costs at every sparsity, in units of the loss; known where layers
            are pruned by their own output error.
        prices: What one weight of each layer is worth in units of the budget `search` is given.
    """

    shapes: list[tuple[int, ...]]
    outliers: Callable[[float], list[float]]
    ladders: Callable[[], list[Ladder]] | None = None
    prices: Callable[[str], list[float]] | None = None

    @property
    def sizes(self) -> list[int]:
        """Entries of each layer's weight."""
        return [int(torch.Size(shape).numel()) for shape in self.shapes]


def split(
    group: Tensor, sizes: list[int], quotas: list[float] | None, count: int
) -> list[tuple[Tensor, int]]:
    """Disjoint sets of active positions, and how many of each go now; the counts add up exactly.

    Args:
        group: Layer number of each active weight, ascending, shape [A].
        sizes: Weights of each layer, removed ones included.
        quotas: How many of each layer shall be gone in all; None for one set.
        count: How many go now.
    """
    if quotas is None:
        return [(torch.arange(len(group), device=group.device), count)]
    active = torch.bincount(group, minlength=len(sizes)).tolist()
    # Quotas add up to the target, but a layer may be ahead of its own, by a rounding or another
    # quota before, so what is lacking is scaled to the count.
    counts = largest_remainder(lacking(quotas, sizes, active), count)
    return [((group == number).nonzero()[:, 0], counts[number]) for number in range(len(sizes))]


def lacking(quotas: list[float], sizes: list[int], active: list[int]) -> list[float]:
    """What each layer still lacks of its quota, 0 where it is ahead of it.

    Args:
        quotas: Weights of each layer that shall be gone in all.
        sizes: Weights of each layer, removed ones included.
        active: Weights of each layer that are left.
    """
    return [max(0.0, q - (n - a)) for q, n, a in zip(quotas, sizes, active, strict=True)]


def largest_remainder(weights: list[float], count: int) -> list[int]:
    """Whole numbers in proportion to `weights` that add up to `count`; ties go to the first."""
    total = sum(weights)
    if count == 0 or total == 0:
        return [0] * len(weights)
    exact = [count * w / total for w in weights]
    counts = [int(e + 1e-9) for e in exact]
    order = sorted(range(len(weights)), key=lambda i: (counts[i] - exact[i], i))
    for i in order[: count - sum(counts)]:
        counts[i] += 1
    return counts
