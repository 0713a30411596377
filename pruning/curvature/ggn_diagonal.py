"""The exact diagonal of the Gauss-Newton matrix.

h_q = 1/N sum_n sum_c (S_n' J_n)_cq^2, one backward pass a column c of S. For losses whose Hessian
in the outputs does not depend on the labels (cross-entropy, mean squared error) this is also the
diagonal of the Fisher matrix, up to the loss's constant.
"""

from torch import Tensor

from pruning.curvature.layer_gradients import factor_columns
from pruning.curvature.losses import Loss
from pruning.curvature.matrix import Diagonal
from pruning.curvature.network import Network
from pruning.curvature.squared_gradients import mean_squares
from pruning.data.batches import ArrayData


def compute(network: Network, data: ArrayData, loss: Loss, active: Tensor) -> Diagonal:
    """The diagonal over the `active` flat positions, batches summed in float64."""
    return Diagonal(mean_squares(network, data, active, factor_columns(loss)))
