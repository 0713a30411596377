"""Matrix products. With a constant matrix they become nn.Linear, else a plain product."""

from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from pruning.formats.onnx.binding import Layout
from pruning.formats.onnx.builder import Builder, Node
from pruning.formats.onnx.graph import Constant
from pruning.formats.onnx.values import Value, tensors


def _matmul(node: Node, builder: Builder) -> None:
    """MatMul(x, W) is Linear with the weight W.T; a vector added to it alone is its bias."""
    weight = builder.constant(node.input(1))
    builder.refuse_computed(node, node.input(1), "weight")
    left_constant = node.input(0) in builder.graph.derived or builder.constant(node.input(0))
    if weight is None or weight.value.ndim != 2 or left_constant or not _is_float(weight):
        builder.call(node, matmul, [node.input(0), node.input(1)])
        return
    output = node.one_output()
    bias, added = _added_bias(node, builder, output, weight.value.shape[1])
    turned = (weight.permutation[1], weight.permutation[0])
    _linear(node, builder, node.inputs[0], weight, turned, 1.0, bias, 1.0, added or output)


def _gemm(node: Node, builder: Builder) -> None:
    """Y = alpha A' B' + beta C; a constant B makes it Linear with the weight alpha B'.T."""
    alpha, beta = node.attributes.float("alpha", 1.0), node.attributes.float("beta", 1.0)
    trans_a, trans_b = node.attributes.int("transA", 0), node.attributes.int("transB", 0)
    a, b, c = (node.input(i) for i in range(3))
    weight = builder.constant(b)
    builder.refuse_computed(node, b, "weight")
    if weight is None or builder.constant(a) or not _is_float(weight):
        options = {"alpha": alpha, "beta": beta, "trans_a": trans_a, "trans_b": trans_b}
        builder.call(node, partial(gemm, **options), [a, b, c])
        return
    if alpha == 0 or not np.isfinite(alpha) or not np.isfinite(beta):
        raise node.unsupported(f"alpha={alpha:g}, beta={beta:g}")
    if weight.value.ndim != 2:
        raise node.invalid("B is not a matrix")
    if trans_a:
        turned_a = f"{node.outputs[0]}/A"
        builder.call(node, transpose_last, [a], [turned_a])
        a = turned_a
    order = weight.permutation if trans_b else weight.permutation[::-1]
    units = weight.value.shape[0 if trans_b else 1]
    offset = builder.constant(c)
    output = node.one_output()
    if c is None or (_is_vector(offset, units) and beta != 0):
        _linear(node, builder, a, weight, order, alpha, offset, beta, output)
        return
    product = f"{output}/product"
    _linear(node, builder, a, weight, order, alpha, None, beta, product)
    builder.call(node, partial(add_scaled, beta=beta), [product, c], [output])


def _linear(
    node: Node,
    builder: Builder,
    source: str | None,
    weight: Constant,
    order: tuple[int, ...],
    alpha: float,
    bias: Constant | None,
    beta: float,
    output: str,
) -> None:
    assert source is not None
    shape = tuple(weight.array.shape[axis] for axis in order)
    layer = nn.Linear(shape[1], shape[0], bias=bias is not None, device="meta")
    weight_name = node.inputs[1] or ""
    shown_name = weight_name if weight_name.endswith(".weight") else weight.source
    names = (shown_name, bias.source if bias else None, node)
    path = builder.place(layer, names, "linear")
    builder.bind(node, f"{path}.weight", weight, Layout(order, shape, alpha), prunable=True)
    if bias is not None:
        layout = Layout(bias.permutation, (shape[0],), beta)
        builder.bind(node, f"{path}.bias", bias, layout)
    builder.layer(node, path, source, output)


def _added_bias(
    node: Node, builder: Builder, product: str, units: int
) -> tuple[Constant | None, str | None]:
    """The vector that the only reader of `product` adds to it, and the sum's name."""
    if builder.graph.uses.get(product) != 1:
        return None, None
    reader = builder.graph.readers.get(product)
    if reader is None or reader.op_type != "Add":
        return None, None
    other = reader.input[1] if reader.input[0] == product else reader.input[0]
    bias = builder.constant(other)
    if bias is None or bias.value.shape != (units,):
        return None, None
    builder.fused.add(reader.output[0])
    return bias, reader.output[0]


def _is_vector(offset: Constant | None, units: int) -> bool:
    """Whether C can be a bias: as many numbers as units, on the last axis."""
    if offset is None or not _is_float(offset):
        return False
    shape = offset.value.shape
    return offset.value.size == units and (units == 1 or shape[-1] == units)


def _is_float(constant: Constant) -> bool:
    return constant.array.dtype.kind == "f"


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
