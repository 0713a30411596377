"""SynFlow (Tanaka et al. 2020, eq. 3): s_q = (dR / d|w_q|) |w_q|."""

from torch import Tensor

from pruning.catalogue.criteria.synflow import SynFlow
from pruning.criteria.problem import Problem
from pruning.curvature import Request


def curvature(criterion: SynFlow, weights: int) -> None:
    """None is needed."""


def evidence(criterion: SynFlow) -> tuple[Request, ...]:
    """What `pruning.evidence.synaptic_flow` computes."""
    return (Request("synaptic_flow"),)


def score(problem: Problem) -> Tensor:
    """Flow through each weight."""
    return problem.evidence["synaptic_flow"] * problem.weights.abs()
