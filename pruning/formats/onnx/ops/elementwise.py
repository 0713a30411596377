"""Elementwise arithmetic, on tensors and on host arrays alike."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pruning.formats.onnx.builder import Builder, Node
from pruning.formats.onnx.values import Host, Value, affordable, is_host, tensors


def apply(on_host: Callable[..., Any], on_tensors: Callable[..., Any], *values: Value) -> Value:
    """The function's host form where every value is a host array, else its tensor form."""
    if not is_host(*values):
        return on_tensors(*tensors(*values))
    affordable(np.broadcast_shapes(*(np.shape(value) for value in values)), "An operation")
    with np.errstate(all="ignore"):
        result = np.asarray(on_host(*values))
    # NumPy promotes int64 sizes to float64 in places where ONNX keeps the type of the inputs.
    return result if result.dtype == np.bool_ else result.astype(np.asarray(values[0]).dtype)


def _operator(on_host: Callable[..., Any], on_tensors: Callable[..., Any], arity: int):  # type: ignore[no-untyped-def]
    def build(node: Node, builder: Builder) -> None:
        inputs = [node.input(i) for i in range(arity)]
        builder.call(node, partial(apply, on_host, on_tensors), inputs)

    return build


def host_div(a: Host, b: Host) -> Host:
    """A / b, towards zero for integers."""
    if a.dtype.kind not in "iu":
        return a / b
    if not np.all(b):
        raise ValueError("division of a size by zero")
    return (np.abs(a) // np.abs(b)) * np.sign(a) * np.sign(b)


def tensor_div(a: Tensor, b: Tensor) -> Tensor:
    """A / b, towards zero for integers."""
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def power(x: Value, exponent: Value) -> Value:
    """X to the exponent, in the type of x.

    A single exponent on the host is passed as a number: the derivative with respect to a tensor
    of exponents has a logarithm in it, which negative bases do not have.
    """
    if is_host(x, exponent):
        return apply(np.power, torch.pow, x, exponent)
    if is_host(exponent) and exponent.size == 1 and isinstance(x, Tensor):
        result = x.pow(exponent.reshape(-1)[0].item())
        return result.reshape(np.broadcast_shapes(x.shape, exponent.shape)).to(x.dtype)
    x, exponent = tensors(x, exponent)
    return x.pow(exponent).to(x.dtype)


def _pow(node: Node, builder: Builder) -> None:
    builder.call(node, power, [node.input(0), node.input(1)])


def _variadic(on_host: Callable[..., Any], on_tensors: Callable[..., Any]):  # type: ignore[no-untyped-def]
    def build(node: Node, builder: Builder) -> None:
        builder.call(node, partial(fold, on_host, on_tensors), list(node.inputs))

    return build


def fold(on_host: Callable[..., Any], on_tensors: Callable[..., Any], *values: Value) -> Value:
    """Applies a function of two values from left to right."""
    result = values[0]
    for value in values[1:]:
        result = apply(on_host, on_tensors, result, value)
    return result


OPERATORS = {
    "Add": _operator(np.add, torch.add, 2),
    "Sub": _operator(np.subtract, torch.sub, 2),
    "Mul": _operator(np.multiply, torch.mul, 2),
    "Div": _operator(host_div, tensor_div, 2),
    "Pow": _pow,
    "Exp": _operator(np.exp, torch.exp, 1),
    "Log": _operator(np.log, torch.log, 1),
    "Sqrt": _operator(np.sqrt, torch.sqrt, 1),
    "Abs": _operator(np.abs, torch.abs, 1),
    "Neg": _operator(np.negative, torch.neg, 1),
    "Reciprocal": _operator(np.reciprocal, torch.reciprocal, 1),
    "Floor": _operator(np.floor, torch.floor, 1),
    "Ceil": _operator(np.ceil, torch.ceil, 1),
    "Sin": _operator(np.sin, torch.sin, 1),
    "Cos": _operator(np.cos, torch.cos, 1),
    "Sum": _variadic(np.add, torch.add),
    "Min": _variadic(np.minimum, torch.minimum),
    "Max": _variadic(np.maximum, torch.maximum),
    "Equal": _operator(np.equal, torch.eq, 2),
    "Less": _operator(np.less, torch.lt, 2),
    "Greater": _operator(np.greater, torch.gt, 2),
    "Not": _operator(np.logical_not, torch.logical_not, 1),
    "And": _operator(np.logical_and, torch.logical_and, 2),
    "Or": _operator(np.logical_or, torch.logical_or, 2),
}
