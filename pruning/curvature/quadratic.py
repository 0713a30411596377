"""The predicted increase of the loss for a change of the weights: g.dw + 1/2 dw' G dw.

G is the undamped Gauss-Newton matrix and is never formed: dw' G dw = 1/N sum_n |S_n' J_n dw|^2 by
one forward-mode pass. The gradient term is part of it, since a trained network is seldom at a
minimum. For a network that is linear in its weights, with squared loss, it is exact.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import grad, jvp

from pruning.curvature.losses import Loss, required
from pruning.curvature.network import Network, Parameters
from pruning.curvature.per_sample import ACTIVATION_BYTES
from pruning.data.batches import ArrayData

BATCH = 256


@dataclass(frozen=True)
class Prediction:
    """`total` = `first_order` + `second_order`; `by_layer` moves one layer at a time.

    Layers interact, so `by_layer` need not add up to `total`.
    """

    first_order: float
    second_order: float
    by_layer: list[float]

    @property
    def total(self) -> float:
        """Predicted increase, in units of the loss."""
        return self.first_order + self.second_order


def gradient(network: Network, data: ArrayData, loss: Loss) -> Tensor:
    """Gradient of the mean loss in the weights in scope, shape [W], batches summed in float64."""
    parameters = network.parameters()
    total = torch.zeros(len(network.weights), dtype=torch.float64, device=network.weights.device)

    def batch_loss(values: Parameters, inputs: tuple[Tensor, ...], target: Tensor) -> Tensor:
        return loss.samples(network.outputs(values, inputs), target).sum()

    with torch.no_grad():
        for inputs, target in data.batches(
            batch_size(network, data), device=network.weights.device
        ):
            parts = grad(batch_loss)(parameters, inputs, required(target, loss))
            total += torch.cat([part.flatten().double() for part in parts.values()])
    return total / data.samples


def curvature_term(network: Network, data: ArrayData, loss: Loss, change: Tensor) -> float:
    """The form dw' G dw for a flat change of the weights in scope, summed in float64."""
    parameters, tangent = network.parameters(), network.named(change)
    total = 0.0
    with torch.no_grad():
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
    """
    g = gradient(network, data, loss)
    parts = []
    for number in range(len(network.weights.layers) if by_layer else 0):
        part = torch.where(network.weights.group == number, change, 0.0)
        moved = bool(part.any())
        parts.append(
            float(g @ part) + 0.5 * curvature_term(network, data, loss, part) if moved else 0.0
        )
    second = 0.5 * curvature_term(network, data, loss, change) if bool(change.any()) else 0.0
    return Prediction(float(g @ change), second, parts)
