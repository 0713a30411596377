"""Activations: functions of one tensor, applied elementwise or along one axis."""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pruning.formats.onnx.builder import Builder, Node
from pruning.formats.onnx.values import Value, axis_of, number, tensors


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
    low = node.attributes.float("min") if builder.opset < 11 else None
    high = node.attributes.float("max") if builder.opset < 11 else None
    inputs = [node.input(0), node.input(1), node.input(2)]
    builder.call(node, partial(clip, lowest=low, highest=high), inputs)


def clip(
    x: Value,
    low: Value | None,
    high: Value | None,
    lowest: float | None = None,
    highest: float | None = None,
) -> Value:
    """X limited to [low, high], either of which may be missing; before opset 11 attributes."""
    least = lowest if low is None else number(low, "Clip's minimum")
    most = highest if high is None else number(high, "Clip's maximum")
    if isinstance(x, Tensor):
        x = x if least is None else x.clamp(min=least)
        return x if most is None else x.clamp(max=most)
    x = x if least is None else np.maximum(x, np.asarray(least, x.dtype))
    return x if most is None else np.minimum(x, np.asarray(most, x.dtype))


def _along_axis(function):  # type: ignore[no-untyped-def]
    def build(node: Node, builder: Builder) -> None:
        if builder.opset >= 13:
            _with(node, builder, function, dim=node.attributes.int("axis", -1))
        else:
            axis = node.attributes.int("axis", 1)
            _with(node, builder, partial(flattened, function), axis=axis)

    return build


def flattened(function: Callable[..., Tensor], x: Tensor, axis: int) -> Tensor:
    """The function along all axes from `axis` on together, as before opset 13."""
    start = x.dim() if axis == x.dim() else axis_of(axis, x.dim(), "Softmax")
    rows = x.reshape((math.prod(x.shape[:start]), math.prod(x.shape[start:])))
    return function(rows, dim=1).reshape(x.shape)


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
