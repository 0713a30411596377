"""A Monte-Carlo estimate of the Gauss-Newton diagonal: its cost doesn't grow with the outputs.

h_q = 1/N sum_n 1/m sum_i (J_n' v_ni)_q^2 with E[v v'] = S_n S_n', so that its mean is the exact
diagonal (Dangel et al. 2020, eq. 20). For losses of a softmax p the v are p - e_y, the gradients at
labels y drawn from p, position by position; else v = S_n u with u standard normal and S_n diagonal,
which for mean squared error is the gradient at a target drawn from a Gaussian around the output.
"""

import torch
from torch import Tensor

from pruning.curvature.losses import Loss
from pruning.curvature.matrix import Diagonal
from pruning.curvature.network import Network
from pruning.curvature.squared_gradients import mean_squares
from pruning.data.batches import ArrayData


def compute(
    network: Network,
    data: ArrayData,
    loss: Loss,
    active: Tensor,
    samples: int = 1,
    seed: int = 0,
) -> Diagonal:
    """The estimate over the `active` flat positions, batches summed in float64.

    Args:
        network: The module with its weights in scope.
        data: Samples; of the targets only which positions they leave out matters.
        loss: The loss of one sample.
        active: Flat positions, ascending, shape [A].
        samples: Draws a sample, m.
        seed: Of the draws.
    """
    generator = torch.Generator().manual_seed(seed)

    def columns(outputs: Tensor, target: Tensor | None) -> Tensor:
        return loss.draw(outputs, target, samples, generator) * samples**-0.5

    return Diagonal(mean_squares(network, data, active, columns))
