"""GraSP (Wang, Zhang, Grosse 2020, eq. 8): s_q = w_q [H g]_q; the least flow lost goes first."""

from torch import Tensor

from pruning.catalogue.criteria.grasp import GraSP
from pruning.criteria.problem import Problem
from pruning.curvature import Request


def curvature(criterion: GraSP, weights: int) -> None:
    """None is needed."""


def evidence(criterion: GraSP) -> tuple[Request, ...]:
    """What `pruning.evidence.hessian_gradient` computes."""
    return (Request("hessian_gradient"),)


def score(problem: Problem) -> Tensor:
    """Half of the first-order loss of |g|^2 for each weight alone."""
    return problem.weights * problem.evidence["hessian_gradient"]
