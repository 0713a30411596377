"""The diagonal of the empirical Fisher matrix: h_q = 1/N sum_n (dl_n / dw_q)^2.

One backward pass of the summed losses gives the output gradients of every sample. Not an estimate
of the Gauss-Newton diagonal (Kunstner et al. 2019): it uses the given labels, and goes to zero
where every sample is fitted.
"""

import torch
from torch import Tensor

from pruning.curvature.losses import Loss, required
from pruning.curvature.matrix import Diagonal
from pruning.curvature.network import Network
from pruning.curvature.squared_gradients import mean_squares
from pruning.data.batches import ArrayData


def compute(network: Network, data: ArrayData, loss: Loss, active: Tensor) -> Diagonal:
    """The diagonal over the `active` flat positions, batches summed in float64."""

    def slopes(outputs: Tensor, target: Tensor | None) -> Tensor:
        with torch.enable_grad():
            z = outputs.detach().requires_grad_()
            total = loss.samples(z, required(target, loss)).sum()
        return torch.autograd.grad(total, z)[0][None]

    return Diagonal(mean_squares(network, data, active, slopes))
