"""The product H g of the exact Hessian of the mean loss with the gradient of the mean loss.

H v is the gradient of g(w).v (Pearlmutter 1994). H is the Hessian over the active weights, and is
not formed.
"""

import torch
from torch import Tensor

from pruning.curvature import quadratic
from pruning.curvature.derivatives import differentiating
from pruning.curvature.products import hessian_products
from pruning.evidence.view import View


def compute(view: View) -> Tensor:
    """H g over the active weights, shape [A], float64: removed weights neither move nor count."""
    network, data, loss = view.network, view.data, view.loss
    everywhere = quadratic.gradient(network, data, loss)
    direction = torch.zeros_like(everywhere)
    direction[view.active] = everywhere[view.active]
    with differentiating():
        return hessian_products(network, data, loss, direction[None])[0][view.active]
