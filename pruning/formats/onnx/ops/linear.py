"""Matrix products. With a constant matrix they become nn.Linear, else a plain product."""

from dataclasses import dataclass
from functools import partial
from math import prod

import numpy as np
import torch
from torch import Tensor, nn

from pruning.formats.onnx.binding import Layout
from pruning.formats.onnx.builder import Builder, Node
from pruning.formats.onnx.graph import Constant
from pruning.formats.onnx.ops.layers import plain
from pruning.formats.onnx.values import Value, tensors


def _matmul(node: Node, builder: Builder) -> None:
    """MatMul(x, W) is Linear with the weight W.T; a vector added to it alone is its bias."""
    weight = builder.constant(node.input(1))
    left_constant = node.input(0) in builder.graph.derived or builder.constant(node.input(0))
    if weight is None or len(weight.shape) == 2:
        builder.refuse_computed(node, node.input(1), "weight")
    if (
        weight is None
        or not weight.source
        or len(weight.shape) != 2
        or left_constant
        or not weight.is_real
        or _tied_otherwise(builder, weight, (1, 0), 1.0)
    ):
        builder.call(node, matmul, [node.input(0), node.input(1)])
        return
    output = node.one_output()
    bias, adder, added = _added_bias(node, builder, output, weight.shape[1])
    biased = _Bias(bias, 1.0, adder)
    _linear(node, builder, node.inputs[0], weight, _layout(weight, (1, 0), 1.0), biased, added)


def _gemm(node: Node, builder: Builder) -> None:
    """Y = alpha A' B' + beta C; a constant B makes it Linear with the weight alpha B'.T."""
    alpha, beta = node.attributes.float("alpha", 1.0), node.attributes.float("beta", 1.0)
    trans_a, trans_b = node.attributes.int("transA", 0), node.attributes.int("transB", 0)
    a, b, c = (node.input(i) for i in range(3))
    weight = builder.constant(b)
    builder.refuse_computed(node, b, "weight")
    order = (0, 1) if trans_b else (1, 0)
    if (
        weight is None
        or not weight.source
        or builder.constant(a)
        or not weight.is_real
        or _tied_otherwise(builder, weight, order, alpha)
    ):
        options = {"alpha": alpha, "beta": beta, "trans_a": trans_a, "trans_b": trans_b}
        builder.call(node, partial(gemm, **options), [a, b, c])
        return
    if alpha == 0 or not np.isfinite(alpha) or not np.isfinite(beta):
        raise node.unsupported(f"alpha={alpha:g}, beta={beta:g}")
    if len(weight.shape) != 2:
        raise node.invalid("B is not a matrix")
    if trans_a:
        turned_a = f"{node.outputs[0]}/A"
        builder.call(node, transpose_last, [a], [turned_a])
        a = turned_a
    layout = _layout(weight, order, alpha)
    units = layout.shape[0]
    offset = builder.constant(c)
    output = node.one_output()
    if c is None or (_is_vector(offset, units) and beta != 0):
        _linear(node, builder, a, weight, layout, _Bias(offset, beta, node), output)
        return
    product = f"{output}/product"
    _linear(node, builder, a, weight, layout, _Bias(None, beta, node), product)
    builder.call(node, partial(add_scaled, beta=beta), [product, c], [output])


@dataclass(frozen=True)
class _Bias:
    """What is added to a product: the vector, its factor, the node that reads it."""

    constant: Constant | None
    factor: float
    node: Node


def _layout(weight: Constant, order: tuple[int, int], alpha: float) -> Layout:
    return Layout(order, tuple(weight.shape[axis] for axis in order), alpha)


def _tied_otherwise(
    builder: Builder, weight: Constant, order: tuple[int, int], alpha: float
) -> bool:
    if len(weight.shape) != 2:
        return False
    return builder.tied_otherwise(weight, _layout(weight, order, alpha))


def _linear(
    node: Node,
    builder: Builder,
    source: str | None,
    weight: Constant,
    layout: Layout,
    bias: _Bias,
    output: str,
) -> None:
    assert source is not None
    units, inputs = layout.shape
    offset = bias.constant
    layer = plain(nn.Linear, inputs, units, bias=offset is not None)
    weight_name = node.inputs[1] or ""
    shown_name = weight_name if weight_name.endswith(".weight") else weight.source
    names = (shown_name, offset.source if offset else None, node)
    path = builder.place(layer, names, "linear")
    builder.bind(node, f"{path}.weight", weight, layout, prunable=True)
    if offset is not None:
        one = Layout(offset.permutation, (units,), bias.factor)
        builder.bind(bias.node, f"{path}.bias", offset, one)
    builder.layer(node, path, source, output)


def _added_bias(
    node: Node, builder: Builder, product: str, units: int
) -> tuple[Constant | None, Node, str]:
    """The vector that the only reader of `product` adds to it, the reader, and the sum's name."""
    reader = builder.graph.readers.get(product)
    if builder.graph.uses.get(product) != 1 or reader is None or reader.op_type != "Add":
        return None, node, product
    other = reader.input[1] if reader.input[0] == product else reader.input[0]
    bias = builder.constant(other)
    if bias is None or bias.shape != (units,) or not bias.is_real:
        return None, node, product
    builder.fused.add(reader.output[0])
    return bias, Node(reader, builder.graph.uses), reader.output[0]


def _is_vector(offset: Constant | None, units: int) -> bool:
    """Whether C can be a bias: as many numbers as units, on the last axis."""
    if offset is None or not offset.is_real:
        return False
    shape = offset.shape
    return prod(shape) == units and (units == 1 or shape[-1] == units)


def matmul(a: Value, b: Value) -> Tensor:
    """The product of two values, batched over leading axes."""
    return torch.matmul(*tensors(a, b))


def transpose_last(x: Value) -> Tensor:
    """X with its last two axes exchanged."""
    return tensors(x)[0].transpose(-1, -2)


def add_scaled(product: Value, c: Value, beta: float) -> Tensor:
    """Product + beta c."""
    product, c = tensors(product, c)
    return product + (c if beta == 1.0 else beta * c)


def gemm(
    a: Value, b: Value, c: Value | None, *, alpha: float, beta: float, trans_a: int, trans_b: int
) -> Tensor:
    """Alpha a' b' + beta c."""
    a, b = tensors(a, b)
    product = (a.transpose(0, 1) if trans_a else a) @ (b.transpose(0, 1) if trans_b else b)
    product = product if alpha == 1.0 else alpha * product
    return product if c is None else add_scaled(product, c, beta)


OPERATORS = {"MatMul": _matmul, "Gemm": _gemm}
