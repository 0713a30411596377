"""Elementwise operators beyond arithmetic: comparisons, bits, rounding and rarer activations."""

from functools import partial

import torch
from torch import Tensor

from pruning.formats.onnx.builder import Builder, Node
from pruning.formats.onnx.ops.dispatch import broadcast, elementwise
from pruning.formats.onnx.values import Value


def _is_inf(node: Node, builder: Builder) -> None:
    low = bool(node.attributes.int("detect_negative", 1))
    high = bool(node.attributes.int("detect_positive", 1))
    builder.call(node, partial(broadcast, partial(is_inf, low=low, high=high)), [node.input(0)])


def is_inf(x: Tensor, low: bool, high: bool) -> Tensor:
    """Where x is minus infinity (if `low`) or infinity (if `high`)."""
    if not x.is_floating_point():
        return torch.zeros_like(x, dtype=torch.bool)
    return (torch.isneginf(x) & low) | (torch.isposinf(x) & high)


def _mod(node: Node, builder: Builder) -> None:
    function = torch.fmod if node.attributes.int("fmod", 0) else torch.remainder
    builder.call(node, partial(broadcast, function), [node.input(0), node.input(1)])


def _bit_shift(node: Node, builder: Builder) -> None:
    direction = node.attributes.string("direction")
    if direction not in ("LEFT", "RIGHT"):
        raise node.invalid(f"direction={direction!r}")
    function = torch.bitwise_left_shift if direction == "LEFT" else torch.bitwise_right_shift
    builder.call(node, partial(broadcast, function), [node.input(0), node.input(1)])


def _mean(node: Node, builder: Builder) -> None:
    builder.call(node, partial(broadcast, mean), list(node.inputs))


def mean(*values: Tensor) -> Tensor:
    """The mean of several values, which broadcast."""
    total = values[0]
    for value in values[1:]:
        total = total + value
    return total / len(values)


def _cast_like(node: Node, builder: Builder) -> None:
    node.attributes.int("saturate")
    node.attributes.string("round_mode")
    builder.call(node, cast_like, [node.input(0), node.input(1)])


def cast_like(x: Value, like: Value) -> Value:
    """X in the type of another value."""
    if isinstance(x, Tensor):
        other = like.dtype if isinstance(like, Tensor) else getattr(torch, like.dtype.name)
        return x.to(other)
    name = str(like.dtype).removeprefix("torch.")
    return x.astype(name)


def _thresholded_relu(node: Node, builder: Builder) -> None:
    alpha = node.attributes.float("alpha", 1.0)
    builder.call(node, partial(broadcast, partial(thresholded_relu, alpha=alpha)), [node.input(0)])


def thresholded_relu(x: Tensor, alpha: float) -> Tensor:
    """X where it is over alpha, 0 elsewhere."""
    return torch.where(x > alpha, x, torch.zeros_like(x))


def _shrink(node: Node, builder: Builder) -> None:
    bias, lambd = node.attributes.float("bias", 0.0), node.attributes.float("lambd", 0.5)
    builder.call(node, partial(broadcast, partial(shrink, bias=bias, lambd=lambd)), [node.input(0)])


def shrink(x: Tensor, bias: float, lambd: float) -> Tensor:
    """X + bias below -lambd, x - bias above lambd, 0 between."""
    moved = torch.where(x > 0, x - bias, x + bias).to(x.dtype)
    return torch.where(x.abs() > lambd, moved, torch.zeros_like(x))


OPERATORS = {
    "Round": elementwise(torch.round),
    "Sign": elementwise(torch.sign),
    "IsNaN": elementwise(torch.isnan),
    "IsInf": _is_inf,
    "Mod": _mod,
    "LessOrEqual": elementwise(torch.le, 2),
    "GreaterOrEqual": elementwise(torch.ge, 2),
    "Xor": elementwise(torch.logical_xor, 2),
    "BitShift": _bit_shift,
    "BitwiseAnd": elementwise(torch.bitwise_and, 2),
    "BitwiseOr": elementwise(torch.bitwise_or, 2),
    "BitwiseXor": elementwise(torch.bitwise_xor, 2),
    "BitwiseNot": elementwise(torch.bitwise_not),
    "Mean": _mean,
    "CastLike": _cast_like,
    "ThresholdedRelu": _thresholded_relu,
    "Shrink": _shrink,
}
