"""No compensation: removed weights become zero, the others stay as they are."""

import torch
from torch import Tensor

from pruning.criteria.problem import Problem


def compensate(problem: Problem, removed: Tensor) -> Tensor:
    """dw_Q = -w_Q and dw_S = 0, shape [A]."""
    return torch.where(removed, -problem.weights, 0.0)
