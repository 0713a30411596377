"""SNIP (Lee, Ajanthan, Torr 2019, eq. 6): s_q = |g_q w_q| / sum_r |g_r w_r|."""

from torch import Tensor

from pruning.catalogue.criteria.snip import SNIP
from pruning.criteria.problem import Problem
from pruning.curvature import Request


def curvature(criterion: SNIP, weights: int) -> None:
    """None is needed."""


def evidence(criterion: SNIP) -> tuple[Request, ...]:
    """What `pruning.evidence.gradient` computes."""
    return (Request("gradient"),)


def score(problem: Problem) -> Tensor:
    """Connection sensitivity; all zero where every derivative is."""
    sensitivity = (problem.evidence["gradient"] * problem.weights).abs()
    total = sensitivity.sum()
    return sensitivity / total if bool(total > 0) else sensitivity
