"""The same sparsity in every layer."""

import torch
from torch import Tensor


def shares(group: Tensor, sizes: list[int], count: int, target: int) -> list[tuple[Tensor, int]]:
    """Each layer's active weights, with counts that add up to `count` exactly.

    Args:
        group: Layer number of each active weight, shape [A].
        sizes: Weights of each layer, removed ones included.
        count: How many go now.
        target: How many are gone in all afterwards; a layer's quota is target * size / total.
    """
    active = torch.bincount(group, minlength=len(sizes)).tolist()
    total = sum(sizes)
    # What each layer still lacks of its quota. Quotas add up to the target, but a layer may be one
    # weight ahead of its own from an earlier rounding, so lacks are scaled to add up to the count.
    lacks = [max(0.0, target * n / total - (n - a)) for n, a in zip(sizes, active, strict=True)]
    counts = largest_remainder(lacks, count)
    return [((group == number).nonzero()[:, 0], counts[number]) for number in range(len(sizes))]


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
