"""The Gauss-Newton matrix over all active weights: G = 1/N sum_n J_n' S_n S_n' J_n."""

import torch
from torch import Tensor

from pruning.curvature.losses import Loss
from pruning.curvature.matrix import Dense
from pruning.curvature.network import Network
from pruning.curvature.per_sample import output_factors
from pruning.data.batches import ArrayData

PANEL = 512
"""Columns of the upper triangle that are accumulated at a time."""


def compute(network: Network, data: ArrayData, loss: Loss, active: Tensor) -> Dense:
    """The matrix over the `active` flat positions.

    The rows S_n' J_n come in the network's dtype; their products are formed and summed in float64
    whatever that is, so the result is symmetric positive semidefinite to float64 rounding.
    """
    size = len(active)
    total = torch.zeros(size, size, dtype=torch.float64, device=network.weights.device)
    for rows in output_factors(network, data, loss, active):
        accumulate_gram(total, rows)
    upper = torch.triu(total)
    return Dense((upper + torch.triu(upper, 1).T) / data.samples)


def accumulate_gram(total: Tensor, rows: Tensor) -> None:
    """Add rows' rows, in float64, to the upper triangle of `total` (below it nothing is promised).

    Works panel by panel, which saves nearly half of the full product.
    """
    rows = rows.double()
    for start in range(0, rows.shape[1], PANEL):
        panel = rows[:, start : start + PANEL]
        total[start : start + PANEL, start:].addmm_(panel.T, rows[:, start:])
