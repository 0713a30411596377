"""The product H g of the exact Hessian of the mean loss with the gradient of the mean loss.

Forward mode over reverse mode (Pearlmutter 1994): H v = d/dt grad L(w + t v) at t = 0, linear in
the samples, so that batches add up. H is the Hessian over the active weights, and is not formed.
"""

import torch
from torch import Tensor
from torch.func import grad, jvp

from pruning.curvature import quadratic
from pruning.curvature.losses import required
from pruning.curvature.network import Parameters
from pruning.evidence.view import View


def compute(view: View) -> Tensor:
    """H g over the active weights, shape [A], float64: removed weights neither move nor count."""
    network, data, loss = view.network, view.data, view.loss
    everywhere = quadratic.gradient(network, data, loss)
    direction = torch.zeros_like(everywhere)
    direction[view.active] = everywhere[view.active]
    parameters, tangent = network.parameters(), network.named(direction)
    total = torch.zeros_like(everywhere)

    def batch_loss(values: Parameters, inputs: tuple[Tensor, ...], target: Tensor) -> Tensor:
        return loss.samples(network.outputs(values, inputs), target).sum()

    with torch.no_grad():
        for inputs, target in data.batches(
            quadratic.batch_size(network, data), device=network.weights.device
        ):
            labels = required(target, loss)
            result = jvp(
                lambda p, x=inputs, y=labels: grad(batch_loss)(p, x, y), (parameters,), (tangent,)
            )
            total += torch.cat([part.flatten().double() for part in result[1].values()])
    return (total / data.samples)[view.active]
