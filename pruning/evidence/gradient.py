"""The gradient of the mean loss: g = 1/N sum_n dl_n / dw."""

from torch import Tensor

from pruning.curvature import quadratic
from pruning.evidence.view import View


def compute(view: View) -> Tensor:
    """The gradient over the active weights, shape [A], float64; batches are summed in float64."""
    return quadratic.gradient(view.network, view.data, view.loss)[view.active]
