"""The predicted increase of the loss for a change of the weights: g.dw + 1/2 dw' H dw.

H is the undamped exact Hessian of the mean loss, as in Taylor's formula, and never formed: one
pass over the data gives g and the product H dw. The gradient term is part of it, since a trained
network is seldom at a minimum. For a network that is linear in its weights, with squared loss, it
is exact.

A network that has no second derivatives in torch is predicted with the Gauss-Newton matrix G in
place of H, G dw = 1/N sum_n J_n' S_n S_n' J_n dw; the report says so.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.func import jvp

from pruning.curvature import products
from pruning.curvature.derivatives import CODE, WITHOUT, differentiating, lacks_derivative
from pruning.curvature.losses import Loss, required
from pruning.curvature.network import Network
from pruning.data.batches import ArrayData
from pruning.errors import SecateurError

MatrixName = Literal["hessian", "gauss_newton"]


@dataclass(frozen=True)
class QuadraticModel:
    """The quadratic model of the loss along some directions.

    Args:
        gradient: g, shape [W], float64.
        products: M v for each direction v, shape [k, W], float64.
        matrix: Which matrix M is.
    """

    gradient: Tensor
    products: Tensor
    matrix: MatrixName


@dataclass(frozen=True)
class Prediction:
    """The quadratic model of one change, shared out among the layers.

    Layers interact. A layer's share of dw' H dw is dw_l.(H dw)_l, which holds its own curvature and
    half of what it has in common with every other layer, so that the shares add up to the whole.

    Args:
        first: g_l.dw_l for each layer.
        second: 1/2 dw_l.(H dw)_l for each layer.
        matrix: Which matrix stands for H.
    """

    first: list[float]
    second: list[float]
    matrix: MatrixName = "hessian"

    @property
    def first_order(self) -> float:
        """g.dw."""
        return math.fsum(self.first)

    @property
    def second_order(self) -> float:
        """1/2 dw' H dw."""
        return math.fsum(self.second)

    @property
    def by_layer(self) -> list[float]:
        """Each layer's share of `total`."""
        return [a + b for a, b in zip(self.first, self.second, strict=True)]

    @property
    def total(self) -> float:
        """Predicted increase, in units of the loss."""
        return self.first_order + self.second_order


def gradient(network: Network, data: ArrayData, loss: Loss) -> Tensor:
    """Gradient of the mean loss in the weights in scope, shape [W], batches summed in float64.

    Raises:
        SecateurError: `operator_unsupported` where torch can't differentiate the network.
    """
    with differentiating():
        return products.gradient(network, data, loss)


def along(network: Network, data: ArrayData, loss: Loss, vectors: Tensor) -> QuadraticModel:
    """The quadratic model at the network's present weights, along all directions in one pass.

    With the Gauss-Newton matrix where the network has no second derivatives.

    Args:
        network: The module with its weights in scope, W of them.
        data: Samples and targets.
        loss: The loss of one sample.
        vectors: Directions, shape [k, W], float64.

    Raises:
        SecateurError: `operator_unsupported` where it has no forward derivatives either, or where
            a derivative is not a number.
    """
    model = _along(network, data, loss, vectors)
    for what, found in (("first", model.gradient), ("second", model.products)):
        if not bool(torch.isfinite(found).all()):
            raise SecateurError(
                CODE,
                f"A {what} derivative of the loss is infinite or not a number, as those of a "
                "square root or a norm are at 0.",
                hint=f"Add a small number under the root, or look at the data's scale. {WITHOUT}",
            )
    return model


def _along(network: Network, data: ArrayData, loss: Loss, vectors: Tensor) -> QuadraticModel:
    try:
        slope, found = products.gradient_and_products(network, data, loss, vectors)
    except (NotImplementedError, RuntimeError, SecateurError) as failure:
        if not lacks_derivative(failure):
            raise
        slope = gradient(network, data, loss)
        return QuadraticModel(
            slope, gauss_newton_products(network, data, loss, vectors), "gauss_newton"
        )
    return QuadraticModel(slope, found, "hessian")


def gauss_newton_products(network: Network, data: ArrayData, loss: Loss, vectors: Tensor) -> Tensor:
    """G v for each row v of `vectors`, shape [k, W], samples summed in float64.

    J v by forward mode; the Hessian of the loss in the outputs, S S', by differentiating the loss
    alone twice; J' by reverse mode.

    Raises:
        SecateurError: `operator_unsupported` where the network has no forward derivative in torch.
    """
    total = torch.zeros_like(vectors, dtype=torch.float64)
    leaves = [p.name for p in network.weights.layers]
    size = products.pass_size(network, data)
    with differentiating():
        for inputs, target in data.batches(size, device=network.weights.device):
            labels = required(target, loss)
            parameters = network.parameters()
            tracked = {k: v.requires_grad_() for k, v in network.parameters().items()}
            with torch.enable_grad():
                outputs = network.outputs(tracked, inputs)
            for number, vector in enumerate(vectors):
                with torch.no_grad():
                    tangent = jvp(
                        lambda p, x=inputs: network.outputs(p, x),
                        (parameters,),
                        (network.named(vector),),
                    )[1]
                pulled = _output_hessian(loss, outputs.detach(), labels, tangent)
                with torch.enable_grad():
                    projected = (outputs * pulled).sum()
                parts = torch.autograd.grad(
                    projected,
                    [tracked[name] for name in leaves],
                    retain_graph=True,
                    materialize_grads=True,
                )
                total[number] += torch.cat([part.flatten().double() for part in parts])
    return total / data.samples


def _output_hessian(loss: Loss, outputs: Tensor, target: Tensor, tangents: Tensor) -> Tensor:
    """The Hessian of the samples' losses in the outputs, times tangents of the outputs."""
    with torch.enable_grad():
        leaf = outputs.requires_grad_()
        total = loss.samples(leaf, target).sum()
        first = torch.autograd.grad(total, leaf, create_graph=True)[0]
        slope = (first * tangents).sum()
    return torch.autograd.grad(slope, leaf)[0]


def predict(network: Network, data: ArrayData, loss: Loss, change: Tensor) -> Prediction:
    """The quadratic model of one change at the network's present weights: one pass over the data.

    Args:
        network: The module at the weights from which the change starts.
        data: Samples and targets.
        loss: The loss of one sample.
        change: dw, flat over the weights in scope, shape [W], float64.

    Raises:
        SecateurError: What `along` raises.
    """
    if not bool(change.any()):
        nothing = [0.0] * len(network.weights.layers)
        return Prediction(nothing, nothing)
    model = along(network, data, loss, change[None])
    return shares(network, model, change, 0)


def shares(network: Network, model: QuadraticModel, change: Tensor, number: int) -> Prediction:
    """What a model says of one of its directions, by layer.

    Args:
        network: The module with its weights in scope, W of them.
        model: Along directions of which `change` is one.
        change: dw, shape [W], float64.
        number: Which of the directions it is.
    """
    parts = network.weights.split
    first = [float(part.sum()) for part in parts(model.gradient * change)]
    second = [0.5 * float(part.sum()) for part in parts(change * model.products[number])]
    return Prediction(first, second, model.matrix)
