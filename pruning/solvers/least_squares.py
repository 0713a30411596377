"""A cheap criterion chooses the support, least squares the weights on it.

Magnitude compares |w| over the layer; Wanda (Sun et al. 2023, equation 1) compares |w_p| |x_p|,
with |x_p| the root mean square of input p, within each output's row. The survivors then make up
for the removed as well as any weights on that support can.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pruning.solvers import layer_patterns as patterns
from pruning.solvers import masked_cg, projection, supports
from pruning.solvers.layer import LayerProblem, LayerSolution
from pruning.solvers.layer_factor import damped, dead_inputs

MEMORY = 1 << 28
"""Bytes that the factors of an exact solution may take at a time."""


@dataclass(frozen=True)
class LeastSquares:
    """What there is to choose.

    Args:
        criterion: `wanda` or `magnitude`.
        steps: Conjugate-gradient steps on the support; 0 solves every row exactly, at the cost of
            one factor for each.
    """

    criterion: Literal["wanda", "magnitude"] = "wanda"
    steps: int = 0


def solve(problem: LayerProblem, options: LeastSquares | None = None) -> LayerSolution:
    """Prune a layer by its scores, exactly `problem.count` zeros, and mend the survivors.

    Raises:
        SecateurError: If the pattern does not fit the layer, or a score is not a number.
        SingularError: If the survivors' curvature can't be factorised.
    """
    options = options or LeastSquares()
    patterns.check(problem)
    removed = projection.support(scores(problem, options.criterion), problem)
    return LayerSolution(fit(problem, removed, options.steps), removed)


def scores(problem: LayerProblem, criterion: str) -> Tensor:
    """What each weight is worth, shape [g, o, d]: the lowest go.

    Wanda's single weights are ranked within their rows, so that each row loses the same number, or
    one more where the count does not divide; its groups are worth the sum of squared scores.
    """
    if criterion == "magnitude":
        return problem.aim.square()
    diagonal = problem.gram.diagonal(dim1=1, dim2=2)[:, None, :]
    worth = problem.aim.square() * diagonal
    if problem.pattern.kind != "unstructured":
        return worth
    if problem.gone is not None:
        worth = worth.masked_fill(problem.gone, -1.0)
    ranks = worth.argsort(dim=-1, stable=True).argsort(dim=-1)
    # A weight that is not a number has no rank.
    return ranks.to(worth.dtype).masked_fill(worth.isnan(), torch.nan)


def fit(problem: LayerProblem, removed: Tensor, steps: int = 0) -> Tensor:
    """The weights on a support, [g, o, d]: exact, or nearer by so many conjugate-gradient steps.

    Raises:
        SingularError: If the survivors' curvature can't be factorised.
    """
    if steps == 0:
        return supports.solve(problem, removed, rows=1, memory=MEMORY)
    dead = dead_inputs(problem)[:, None, :]
    aim = problem.aim.masked_fill(dead, 0.0)
    weight = masked_cg.improve(damped(problem), aim, aim, removed, steps)
    return torch.where(dead & ~removed, problem.aim, weight)
