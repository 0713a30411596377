"""Magnitude: s_q = |w_q|."""

from torch import Tensor

from pruning.catalogue.criteria.magnitude import Magnitude
from pruning.criteria.problem import Problem


def curvature(criterion: Magnitude, weights: int) -> None:
    """None is needed."""


def score(problem: Problem) -> Tensor:
    """The absolute value of each weight."""
    return problem.weights.abs()
