"""Wanda (Sun et al. 2024, eq. 1): s_q = |w_q| |x_j(q)|_2, compared within each output row."""

import torch
from torch import Tensor

from pruning.catalogue.criteria.wanda import Wanda
from pruning.criteria.problem import Problem
from pruning.curvature import Request


def curvature(criterion: Wanda, weights: int) -> None:
    """None is needed."""


def evidence(criterion: Wanda) -> tuple[Request, ...]:
    """Norms of the inputs and, to compare within rows, which row each weight is in."""
    norms = Request("input_norms")
    return (norms, Request("output_rows")) if criterion.compare == "row" else (norms,)


def score(problem: Problem) -> Tensor:
    """The product itself, or its rank within the row as a share of the row."""
    product = problem.weights.abs() * problem.evidence["input_norms"]
    rows = problem.evidence.get("output_rows")
    return product if rows is None else rank_in_row(product, rows)


def rank_in_row(values: Tensor, rows: Tensor) -> Tensor:
    """(rank + 1/2) / n for each value among the n of its row, smallest first, ties by position.

    The smallest k of all results are k/A of every row, to within one weight a row.

    Args:
        values: Shape [A].
        rows: Row of each value, shape [A], int64.
    """
    order = values.argsort(stable=True)
    order = order[rows[order].argsort(stable=True)]
    counts = torch.bincount(rows)
    starts = counts.cumsum(0) - counts
    ranks = torch.empty_like(values)
    at = rows[order]
    ranks[order] = torch.arange(len(values), device=values.device).to(values) - starts[at]
    return (ranks + 0.5) / counts[rows]
