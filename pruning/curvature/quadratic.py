"""The predicted increase of the loss for a change of the weights: g.dw + 1/2 dw' H dw.

H is the undamped exact Hessian of the mean loss, as in Taylor's formula, and never formed: one
product H dw by forward over reverse mode. The gradient term is part of it, since a trained network
is seldom at a minimum. For a network that is linear in its weights, with squared loss, it is exact.

A network that has no second derivatives in torch is predicted with the Gauss-Newton matrix G in
place of H, dw' G dw = 1/N sum_n |S_n' J_n dw|^2 by one forward-mode pass; the report says so.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.func import grad, jvp

from pruning.curvature.derivatives import differentiating, lacks_derivative
from pruning.curvature.losses import Loss, required
from pruning.curvature.network import Network, Parameters
from pruning.curvature.per_sample import ACTIVATION_BYTES
from pruning.curvature.products import hessian_products
from pruning.data.batches import ArrayData
from pruning.errors import SecateurError

BATCH = 256

MatrixName = Literal["hessian", "gauss_newton"]


class CurvatureTerm(NamedTuple):
    """dw' M dw, and which matrix M is."""

    value: float
    matrix: MatrixName


@dataclass(frozen=True)
class Prediction:
    """`total` = `first_order` + `second_order`; `by_layer` moves one layer at a time.

    Layers interact, so `by_layer` need not add up to `total`. `matrix` is that of `second_order`.
    """

    first_order: float
    second_order: float
    by_layer: list[float]
    matrix: MatrixName = "hessian"

    @property
    def total(self) -> float:
        """Predicted increase, in units of the loss."""
        return self.first_order + self.second_order


def gradient(network: Network, data: ArrayData, loss: Loss) -> Tensor:
    """Gradient of the mean loss in the weights in scope, shape [W], batches summed in float64.

    Raises:
        SecateurError: `operator_unsupported` where torch can't differentiate the network.
    """
    parameters = network.parameters()
    total = torch.zeros(len(network.weights), dtype=torch.float64, device=network.weights.device)

    def batch_loss(values: Parameters, inputs: tuple[Tensor, ...], target: Tensor) -> Tensor:
        return loss.samples(network.outputs(values, inputs), target).sum()

    with torch.no_grad(), differentiating():
        for inputs, target in data.batches(
            batch_size(network, data), device=network.weights.device
        ):
            parts = grad(batch_loss)(parameters, inputs, required(target, loss))
            total += torch.cat([part.flatten().double() for part in parts.values()])
    return total / data.samples


def curvature_term(network: Network, data: ArrayData, loss: Loss, change: Tensor) -> CurvatureTerm:
    """The form dw' H dw for a flat change of the weights in scope, summed in float64.

    With the Gauss-Newton matrix where the network has no second derivatives.

    Raises:
        SecateurError: `operator_unsupported` where it has no forward derivatives either.
    """
    if not bool(change.any()):
        return CurvatureTerm(0.0, "hessian")
    try:
        product = hessian_products(network, data, loss, change[None])[0]
    except (NotImplementedError, RuntimeError, SecateurError) as failure:
        if not lacks_derivative(failure):
            raise
        return CurvatureTerm(gauss_newton_term(network, data, loss, change), "gauss_newton")
    return CurvatureTerm(float(change @ product), "hessian")


def gauss_newton_term(network: Network, data: ArrayData, loss: Loss, change: Tensor) -> float:
    """The form dw' G dw for a flat change of the weights in scope, summed in float64.

    Raises:
        SecateurError: `operator_unsupported` where the network has no forward derivative in torch.
    """
    parameters, tangent = network.parameters(), network.named(change)
    total = 0.0
    with torch.no_grad(), differentiating():
        for inputs, target in data.batches(
            batch_size(network, data), device=network.weights.device
        ):
            result = jvp(lambda p, x=inputs: network.outputs(p, x), (parameters,), (tangent,))
            total += float(loss.project(result[0], result[1], target).double().square().sum())
    return total / data.samples


def batch_size(network: Network, data: ArrayData) -> int:
    """Samples a batch, at most `BATCH`, such that a backward pass over it fits in memory."""
    inputs, _ = next(iter(data.batches(1, device=network.weights.device)))
    return max(1, min(BATCH, ACTIVATION_BYTES // max(1, network.saved_bytes(inputs))))


def predict(
    network: Network, data: ArrayData, loss: Loss, change: Tensor, *, by_layer: bool = True
) -> Prediction:
    """The quadratic model at the network's present weights.

    Args:
        network: The module at the weights from which the change starts.
        data: Samples and targets.
        loss: The loss of one sample.
        change: dw, flat over the weights in scope, shape [W], float64.
        by_layer: Whether to predict each layer's part of the change alone as well.

    Raises:
        SecateurError: `operator_unsupported` where torch can't differentiate the network.
    """
    g = gradient(network, data, loss)
    parts = []
    for number in range(len(network.weights.layers) if by_layer else 0):
        part = torch.where(network.weights.group == number, change, 0.0)
        parts.append(float(g @ part) + 0.5 * curvature_term(network, data, loss, part).value)
    second = curvature_term(network, data, loss, change)
    return Prediction(float(g @ change), 0.5 * second.value, parts, second.matrix)
