"""The diagonal of the empirical Fisher matrix: h_q = 1/N sum_n (dl_n / dw_q)^2.

Not an estimate of the Gauss-Newton diagonal (Kunstner et al. 2019): it uses the given labels, and
goes to zero where every sample is fitted.
"""

import torch
from torch import Tensor

from pruning.curvature.losses import Loss
from pruning.curvature.matrix import Diagonal
from pruning.curvature.network import Network
from pruning.curvature.per_sample import gradients
from pruning.data.batches import ArrayData


def compute(network: Network, data: ArrayData, loss: Loss, active: Tensor) -> Diagonal:
    """The diagonal over the `active` flat positions, summed in float64."""
    total = torch.zeros(len(active), dtype=torch.float64, device=network.weights.device)
    for rows in gradients(network, data, loss, active):
        total += rows.double().square().sum(0)
    return Diagonal(total / data.samples)
