"""The nearest matrix with so many zeros in a pattern's places: whose squares add up to most stays.

In the metric of a diagonal the best support of `count` zeros is that of the largest squares, group
by group. Between the iterations of a solver the count may be off by a little, which saves ranking
all entries each time; what a solver answers goes through `support`, which is exact.
"""

import math

import torch
from torch import Tensor

from pruning.solvers import layer_patterns as patterns
from pruning.solvers.layer import LayerProblem, Pattern

SAMPLE = 1 << 15
"""Entries that a threshold is estimated from: its rank is off by 0.3 % (one standard error)."""

NARROW = 16
"""Groups up to this width are ranked by comparing all pairs, wider ones by sorting."""


def support(squares: Tensor, problem: LayerProblem) -> Tensor:
    """Exactly `problem.count` entries to remove, ties by position, shape [g, o, d].

    Args:
        squares: What each entry is worth, not negative, shape [g, o, d].
        problem: Its count, its pattern, and the weights that are gone.

    Raises:
        SecateurError: `loss_non_finite` if a square is NaN.
    """
    pattern, gone = problem.pattern, problem.gone
    if gone is not None:
        squares = squares.masked_fill(gone, -torch.inf)
    if pattern.kind == "unstructured":
        return patterns.smallest(squares, problem.count)
    grouped = patterns.into_groups(squares, pattern)
    if pattern.kind == "block":
        size = pattern.rows * pattern.columns
        lowest = patterns.smallest(grouped.sum(-1), problem.count // size)
        return patterns.from_groups(lowest, pattern)
    before = patterns.into_groups(patterns.already_gone(problem), pattern)
    cut = pattern.columns - pattern.keep
    return patterns.smallest_of_each(grouped, cut, before, dim=-1).flatten(2)


def nearly(squares: Tensor, problem: LayerProblem) -> Tensor:
    """About `problem.count` entries to remove, those gone included, shape [g, o, d].

    Exact for patterns of groups; for single weights the threshold comes from a fixed sample.
    """
    pattern, gone = problem.pattern, problem.gone
    if pattern.kind == "block":
        return support(squares, problem)
    if pattern.kind == "nm":
        lowest = _lowest_of_each(squares, pattern)
    else:
        if gone is not None:
            squares = squares.masked_fill(gone, -1.0)
        lowest = squares < _threshold(squares, problem.count)
    return lowest if gone is None else lowest | gone


def _threshold(values: Tensor, count: int) -> Tensor:
    """About the `count`-th smallest value, so that those under it are about `count`."""
    every = max(values.numel() // SAMPLE, 1)
    while math.gcd(every, values.shape[-1]) > 1:
        every += 1
    sample = values.reshape(-1)[::every]
    rank = min(round(count * sample.numel() / values.numel()), sample.numel() - 1)
    return sample.kthvalue(rank + 1).values


def _lowest_of_each(squares: Tensor, pattern: Pattern) -> Tensor:
    """The lowest of each group of neighbours along the inputs, ties by position, [g, o, d]."""
    width, cut = pattern.columns, pattern.columns - pattern.keep
    grouped = squares.unflatten(-1, (-1, width))
    if width > NARROW:
        order = grouped.argsort(dim=-1, stable=True)[..., :cut]
        true = torch.ones_like(order, dtype=torch.bool)
        return torch.zeros_like(grouped, dtype=torch.bool).scatter_(-1, order, true).flatten(-2)
    rank = torch.zeros_like(grouped, dtype=torch.uint8)
    for i in range(width):
        for j in range(i):
            after = grouped[..., i] >= grouped[..., j]
            rank[..., i] += after
            rank[..., j] += ~after
    return (rank < cut).flatten(-2)
