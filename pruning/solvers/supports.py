"""The best weights on a given support, row by row, from the Cholesky factor of each row's own H_SS.

Over the survivors S of a row, (W - A) H (W - A)' is least at w_S = a_S + H_SS^-1 H_SQ a_Q with Q
the weights removed and H damped. Rows that share their support share the factor.
"""

import torch
from torch import Tensor

from pruning.solvers.layer import LayerProblem
from pruning.solvers.layer_factor import cholesky, damped


def solve(problem: LayerProblem, removed: Tensor, rows: int, memory: int) -> Tensor:
    """The weights of a layer for a support, exactly zero where `removed`, shape [g, o, d].

    Args:
        problem: The layer.
        removed: True for the removed weights, shape [g, o, d].
        rows: How many neighbouring rows share their support.
        memory: Bytes that the factors solved for at one time may take.

    Raises:
        SingularError: If the survivors' curvature can't be factorised.
    """
    g, o, d = removed.shape
    pull = (problem.aim * removed) @ problem.gram
    pull, aim = pull.view(-1, rows, d), problem.aim.view(-1, rows, d)
    gone = removed.view(-1, rows, d)[:, 0]
    own = torch.arange(g, device=gone.device).repeat_interleave(o // rows)
    curvature = damped(problem)
    kept = d - gone.sum(1)
    order = kept.argsort(descending=True)
    sizes = kept[order].tolist()
    weight = torch.zeros_like(aim)
    start = 0
    while start < len(order) and sizes[start] > 0:
        size = sizes[start]
        # A matrix, its factor, and as much again while they are made.
        many = max(memory // (4 * size * size * curvature.element_size()), 1)
        strips = order[start : start + many]
        start += many
        index = gone[strips].to(torch.uint8).argsort(dim=1, stable=True)[:, :size]
        real = torch.arange(size, device=index.device) < kept[strips, None]
        matrix = curvature[own[strips, None, None], index[:, :, None], index[:, None, :]]
        matrix.masked_fill_(~(real[:, :, None] & real[:, None, :]), 0.0)
        matrix.diagonal(dim1=1, dim2=2).masked_fill_(~real, 1.0)
        factor = cholesky(matrix)
        at = index[:, None, :].expand(-1, rows, -1)
        right = pull[strips].gather(2, at) * real[:, None, :]
        change = torch.cholesky_solve(right.transpose(1, 2), factor).transpose(1, 2)
        solved = (aim[strips].gather(2, at) + change) * real[:, None, :]
        weight[strips] = weight[strips].scatter(2, at, solved)
    return weight.view(g, o, d)
