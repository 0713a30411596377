"""Activations: functions of one tensor, applied elementwise or along one axis."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from pruning.formats.onnx.builder import Builder, Node
from pruning.formats.onnx.values import Value, number, tensors


def _unary(function):  # type: ignore[no-untyped-def]
    def build(node: Node, builder: Builder) -> None:
        builder.call(node, partial(_on_tensor, function), [node.input(0)])

    return build


def _on_tensor(function, x: Value) -> Tensor:  # type: ignore[no-untyped-def]
    return function(tensors(x)[0])


def _with(node: Node, builder: Builder, function, **options: float | int | str) -> None:  # type: ignore[no-untyped-def]
    builder.call(node, partial(_on_tensor, partial(function, **options)), [node.input(0)])


def _leaky_relu(node: Node, builder: Builder) -> None:
    _with(node, builder, F.leaky_relu, negative_slope=node.attributes.float("alpha", 0.01))


def _elu(node: Node, builder: Builder) -> None:
    _with(node, builder, F.elu, alpha=node.attributes.float("alpha", 1.0))


def _celu(node: Node, builder: Builder) -> None:
    _with(node, builder, F.celu, alpha=node.attributes.float("alpha", 1.0))


def _selu(node: Node, builder: Builder) -> None:
    alpha = node.attributes.float("alpha", 1.67326319217681884765625)
    gamma = node.attributes.float("gamma", 1.05070102214813232421875)
    _with(node, builder, selu, alpha=alpha, gamma=gamma)


def selu(x: Tensor, alpha: float, gamma: float) -> Tensor:
    """Gamma * elu(x, alpha)."""
    return gamma * F.elu(x, alpha)


def _gelu(node: Node, builder: Builder) -> None:
    approximate = node.attributes.string("approximate", "none")
    if approximate not in ("none", "tanh"):
        raise node.unsupported(f"approximate={approximate!r}")
    _with(node, builder, F.gelu, approximate=approximate)


def _hard_sigmoid(node: Node, builder: Builder) -> None:
    alpha, beta = node.attributes.float("alpha", 0.2), node.attributes.float("beta", 0.5)
    _with(node, builder, hard_sigmoid, alpha=alpha, beta=beta)


def hard_sigmoid(x: Tensor, alpha: float, beta: float) -> Tensor:
    """max(0, min(1, alpha * x + beta))."""
    return (alpha * x + beta).clamp(0.0, 1.0)


def hard_swish(x: Tensor) -> Tensor:
    """X * hard_sigmoid(x, 1/6, 1/2)."""
    return x * hard_sigmoid(x, 1 / 6, 0.5)


def _swish(node: Node, builder: Builder) -> None:
    _with(node, builder, swish, alpha=node.attributes.float("alpha", 1.0))


def swish(x: Tensor, alpha: float) -> Tensor:
    """X * sigmoid(alpha * x)."""
    return x * torch.sigmoid(alpha * x)


def _prelu(node: Node, builder: Builder) -> None:
    builder.call(node, prelu, [node.input(0), node.input(1)])


def prelu(x: Value, slope: Value) -> Tensor:
    """X where it is not negative, slope * x elsewhere; slope broadcasts."""
    x, slope = tensors(x, slope)
    return torch.where(x < 0, slope * x, x)


def _clip(node: Node, builder: Builder) -> None:
    builder.call(node, clip, [node.input(0), node.input(1), node.input(2)])


def clip(x: Value, low: Value | None, high: Value | None) -> Tensor:
    """X limited to [low, high], either of which may be missing."""
    (x,) = tensors(x)
    if low is not None:
        x = x.clamp(min=number(low, "Clip's minimum"))
    if high is not None:
        x = x.clamp(max=number(high, "Clip's maximum"))
    return x


def _along_axis(function):  # type: ignore[no-untyped-def]
    def build(node: Node, builder: Builder) -> None:
        _with(node, builder, function, dim=node.attributes.int("axis", -1))

    return build


OPERATORS = {
    "Relu": _unary(F.relu),
    "Sigmoid": _unary(torch.sigmoid),
    "Tanh": _unary(torch.tanh),
    "Softsign": _unary(F.softsign),
    "Softplus": _unary(F.softplus),
    "Mish": _unary(F.mish),
    "HardSwish": _unary(hard_swish),
    "Erf": _unary(torch.erf),
    "LeakyRelu": _leaky_relu,
    "PRelu": _prelu,
    "Elu": _elu,
    "Celu": _celu,
    "Selu": _selu,
    "Gelu": _gelu,
    "Swish": _swish,
    "HardSigmoid": _hard_sigmoid,
    "Clip": _clip,
    "Softmax": _along_axis(torch.softmax),
    "LogSoftmax": _along_axis(torch.log_softmax),
}
