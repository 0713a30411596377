"""The exact diagonal of the Gauss-Newton matrix.

h_q = 1/N sum_n sum_c (S_n' J_n)_cq^2, one backward pass a column c of S. For losses whose Hessian
in the outputs does not depend on the labels (cross-entropy, mean squared error) this is also the
diagonal of the Fisher matrix, up to the loss's constant.
"""

import torch
from torch import Tensor

from pruning.curvature.losses import Loss
from pruning.curvature.matrix import Diagonal
from pruning.curvature.network import Network
from pruning.curvature.per_sample import output_factors
from pruning.data.batches import ArrayData


def compute(network: Network, data: ArrayData, loss: Loss, active: Tensor) -> Diagonal:
    """The diagonal over the `active` flat positions, summed in float64."""
    total = torch.zeros(len(active), dtype=torch.float64, device=network.weights.device)
    for rows in output_factors(network, data, loss, active):
        total += rows.double().square().sum(0)
    return Diagonal(total / data.samples)
