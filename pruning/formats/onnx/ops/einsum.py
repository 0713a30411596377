"""Einsum and other products over several values."""

from functools import partial

import torch
from torch import Tensor

from pruning.formats.onnx.builder import Builder, Node
from pruning.formats.onnx.ops.dispatch import compute
from pruning.formats.onnx.values import Value, affordable, is_host


def _einsum(node: Node, builder: Builder) -> None:
    equation = node.attributes.string("equation")
    allowed = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.,-> ")
    if not equation or len(equation) > 500 or set(equation) - allowed:
        raise node.invalid("its equation is not one")
    builder.call(node, partial(einsum, equation.replace(" ", "")), list(node.inputs))


def einsum(equation: str, *values: Value) -> Value:
    """The sum of products that the equation describes."""
    if is_host(*values):
        shapes = [torch.empty(v.shape, device="meta") for v in values]
        affordable(torch.einsum(equation, *shapes).shape, "Einsum")
    found: Value = compute(partial(torch.einsum, equation), *values)
    return found


def _det(node: Node, builder: Builder) -> None:
    builder.call(node, partial(compute, determinant), [node.input(0)])


def determinant(x: Tensor) -> Tensor:
    """The determinant of the last two axes."""
    return torch.linalg.det(x)


OPERATORS = {"Einsum": _einsum, "Det": _det}
