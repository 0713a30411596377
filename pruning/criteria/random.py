"""Random: s_q ~ U(0, 1), the control."""

from torch import Tensor

from pruning.catalogue.criteria.random import Random
from pruning.criteria.problem import Problem
from pruning.curvature import Request


def curvature(criterion: Random, weights: int) -> None:
    """None is needed."""


def evidence(criterion: Random) -> tuple[Request, ...]:
    """What `pruning.evidence.draws` computes."""
    return (Request("draws"),)


def score(problem: Problem) -> Tensor:
    """Each weight's draw."""
    return problem.evidence["draws"]
