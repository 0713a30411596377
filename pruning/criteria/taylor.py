"""First-order Taylor (Molchanov et al. 2017, eq. 7): s_q = |g_q w_q|."""

from torch import Tensor

from pruning.catalogue.criteria.taylor import Taylor
from pruning.criteria.problem import Problem
from pruning.curvature import Request


def curvature(criterion: Taylor, weights: int) -> None:
    """None is needed."""


def evidence(criterion: Taylor) -> tuple[Request, ...]:
    """What `pruning.evidence.gradient` computes."""
    return (Request("gradient"),)


def score(problem: Problem) -> Tensor:
    """Size of the first-order change of the loss for each weight alone."""
    return (problem.evidence["gradient"] * problem.weights).abs()
