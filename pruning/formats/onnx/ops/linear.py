"""Matrix products. With a constant factor they become layers, else a plain product."""

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
from pruning.layers import MatMul


def _matmul(node: Node, builder: Builder) -> None:
    """MatMul(x, W) is Linear with the weight W.T; a vector added to it alone is its bias.

    A matrix on the left, or a batch of them, is a layer of its own.
    """
    if _constant_factor(node, builder):
        return
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
    if alpha != 0 and np.isfinite(alpha) and np.isfinite(beta) and _is_factor(builder, a, b, 2):
        product = f"{node.outputs[0]}/product"
        if trans_b:
            turned_b = f"{node.outputs[0]}/B"
            builder.call(node, transpose_last, [b], [turned_b])
            b = turned_b
        held = builder.constant(a)
        assert held is not None
        assert a is not None
        assert b is not None
        turn = (1, 0) if trans_a else (0, 1)
        layout = Layout(turn, tuple(held.shape[axis] for axis in turn), alpha)
        if not builder.tied_otherwise(held, layout):
            _factor(node, builder, (a, b), layout, product if c else node.one_output())
            if c:
                builder.call(node, partial(add_scaled, beta=beta), [product, c])
            return
        b = node.input(1)
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


def _constant_factor(node: Node, builder: Builder) -> bool:
    """Makes a layer of a product whose constant is on the left, or one matrix for each of a batch.

    Returns:
        False where it is no such product.
    """
    a, b = node.input(0), node.input(1)
    for held, other, left in ((a, b, True), (b, a, False)):
        if not _is_factor(builder, held, other, 2 if left else 3):
            continue
        constant = builder.constant(held)
        assert constant is not None
        assert held is not None
        assert other is not None
        layout = Layout(tuple(range(len(constant.shape))), constant.shape)
        if builder.tied_otherwise(constant, layout):
            return False
        _factor(node, builder, (held, other), layout, node.one_output(), left=left)
        return True
    return False


def _is_factor(builder: Builder, held: str | None, other: str | None, least: int) -> bool:
    """Whether a stored constant of at least so many axes multiplies a computed value of two."""
    constant = builder.constant(held)
    if constant is None or not constant.source or not constant.is_real or other is None:
        return False
    if builder.constant(other) or other in builder.graph.derived:
        return False
    return len(constant.shape) >= least and (builder.rank(other) or 2) >= 2


def _factor(
    node: Node,
    builder: Builder,
    factors: tuple[str, str],
    layout: Layout,
    output: str,
    left: bool = True,
) -> None:
    held, other = factors
    constant = builder.constant(held)
    assert constant is not None
    layer = plain(MatMul, layout.shape, left)
    name = held if held.endswith(".weight") else constant.source
    path = builder.place(layer, (name, None, node), "matmul")
    builder.bind(node, f"{path}.weight", constant, layout, prunable=True)
    builder.layer(node, path, other, output)


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
