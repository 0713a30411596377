"""Operators that order, mark or count numbers along an axis."""

from functools import partial
from typing import Any

import numpy as np
import torch
from onnx import helper
from torch import Tensor

from pruning.errors import SecateurError
from pruning.formats.onnx.binding import computing_dtype
from pruning.formats.onnx.builder import Builder, Node
from pruning.formats.onnx.ops.dispatch import compute, priced
from pruning.formats.onnx.values import (
    Host,
    Value,
    affordable,
    axis_of,
    host,
    ints,
    is_host,
    tensors,
)


def _top_k(node: Node, builder: Builder) -> None:
    axis, fixed = node.attributes.int("axis", -1), node.attributes.int("k")
    largest = bool(node.attributes.int("largest", 1))
    node.attributes.int("sorted", 1)
    function = partial(top_k, fixed=fixed, axis=axis, largest=largest)
    outputs = [name or f"{node.label}/{i}" for i, name in enumerate((*node.outputs, "")[:2])]
    builder.call(node, function, [node.input(0), node.input(1)], outputs)


def top_k(
    x: Value, k: Value | None, fixed: int | None, axis: int, largest: bool
) -> tuple[Value, Value]:
    """The k largest or smallest numbers along an axis in order, and where they stood.

    Of equal numbers the first comes first.
    """
    (count,) = [fixed] if k is None else ints(k, "TopK's K")
    axis = axis_of(axis, len(x.shape), "TopK")
    if count is None or not 0 <= count <= x.shape[axis]:
        raise SecateurError("model_invalid", f"TopK of {count} out of {x.shape[axis]} numbers.")

    def sort(x: Tensor) -> tuple[Tensor, Tensor]:
        values, indices = torch.sort(x, dim=axis, descending=largest, stable=True)
        return values.narrow(axis, 0, count), indices.narrow(axis, 0, count)

    found: tuple[Value, Value] = compute(sort, x)
    return found


def _arg(function: Any):  # type: ignore[no-untyped-def]
    def build(node: Node, builder: Builder) -> None:
        axis, keep = node.attributes.int("axis", 0), bool(node.attributes.int("keepdims", 1))
        last = bool(node.attributes.int("select_last_index", 0))
        options = {"function": function, "axis": axis, "keep": keep, "last": last}
        builder.call(node, partial(compute, partial(arg, **options)), [node.input(0)])

    return build


def arg(x: Tensor, function: Any, axis: int, keep: bool, last: bool) -> Tensor:
    """Where the extreme number stands along an axis: the first of equal ones, or the last."""
    axis = axis_of(axis, x.dim(), "ArgMax or ArgMin")
    if not last:
        return function(x, dim=axis, keepdim=keep)  # type: ignore[no-any-return]
    return x.shape[axis] - 1 - function(x.flip(axis), dim=axis, keepdim=keep)  # type: ignore[no-any-return]


def _hardmax(node: Node, builder: Builder) -> None:
    old = builder.opset < 13
    axis = node.attributes.int("axis", 1 if old else -1)
    builder.call(node, partial(compute, partial(hardmax, axis=axis, old=old)), [node.input(0)])


def hardmax(x: Tensor, axis: int, old: bool) -> Tensor:
    """1 at the first maximum along an axis, 0 elsewhere; `old` joins the axes from it on."""
    axis = axis_of(axis, x.dim(), "Hardmax")
    flat = x.flatten(axis) if old else x.movedim(axis, -1)
    places = flat.argmax(dim=-1, keepdim=True)
    marked = (torch.arange(flat.shape[-1], device=x.device) == places).to(x.dtype)
    return marked.reshape(x.shape) if old else marked.movedim(-1, axis)


def _one_hot(node: Node, builder: Builder) -> None:
    axis = node.attributes.int("axis", -1)
    builder.call(node, partial(one_hot, axis=axis), [node.input(i) for i in range(3)])


def one_hot(indices: Value, depth: Value, values: Value, axis: int) -> Value:
    """values[1] at each index along a new axis of size `depth`, values[0] elsewhere."""
    (count,) = ints(depth, "OneHot's depth")
    shape = [*indices.shape]
    axis = axis_of(axis, len(shape) + 1, "OneHot")
    shape.insert(axis, count)
    if is_host(indices, values):
        affordable(shape, "OneHot")

    def mark(indices: Tensor, values: Tensor) -> Tensor:
        priced(indices, shape, "OneHot")
        places = indices.long().unsqueeze(axis)
        places = torch.where(places < 0, places + count, places)
        sizes = [1] * len(shape)
        sizes[axis] = count
        hit = torch.arange(count, device=places.device).reshape(sizes) == places
        return torch.where(hit, values[1], values[0])

    found: Value = compute(mark, indices, values)
    return found


def _trilu(node: Node, builder: Builder) -> None:
    function = torch.triu if node.attributes.int("upper", 1) else torch.tril
    builder.call(node, partial(trilu, function), [node.input(0), node.input(1)])


def trilu(function: Any, x: Value, k: Value | None) -> Value:
    """The upper or lower triangle of the last two axes, from the k-th diagonal on."""
    (offset,) = [0] if k is None else ints(k, "Trilu's k")
    found: Value = compute(lambda x: function(x, offset), x)
    return found


def _cum_sum(node: Node, builder: Builder) -> None:
    exclusive = bool(node.attributes.int("exclusive", 0))
    reverse = bool(node.attributes.int("reverse", 0))
    function = torch.cumprod if node.operator == "CumProd" else torch.cumsum
    options = {"exclusive": exclusive, "reverse": reverse}
    builder.call(node, partial(cumulate, function, options), [node.input(0), node.input(1)])


def cumulate(function: Any, options: dict[str, bool], x: Value, axis: Value) -> Value:
    """Sums or products of the numbers up to each, along an axis."""
    (given,) = ints(axis, "The axis of a cumulative sum")
    along = axis_of(given, len(x.shape), "A cumulative sum")
    start = 1 if function is torch.cumprod else 0

    def run(x: Tensor) -> Tensor:
        x = x.flip(along) if options["reverse"] else x
        total = function(x, dim=along, dtype=x.dtype)
        if options["exclusive"]:
            first = torch.full_like(x.narrow(along, 0, min(1, x.shape[along])), start)
            total = torch.cat([first, total.narrow(along, 0, max(0, x.shape[along] - 1))], along)
        return total.flip(along) if options["reverse"] else total

    found: Value = compute(run, x)
    return found


def _eye_like(node: Node, builder: Builder) -> None:
    kind, offset = node.attributes.int("dtype"), node.attributes.int("k", 0)
    dtype = None
    if kind is not None:
        try:
            dtype = computing_dtype(np.dtype(helper.tensor_dtype_to_np_dtype(kind)))
        except KeyError:
            raise node.invalid(f"an unknown type {kind}") from None
    builder.call(node, partial(eye_like, dtype=dtype, offset=offset), [node.input(0)])


def eye_like(x: Value, dtype: np.dtype | None, offset: int) -> Host:
    """Ones on a diagonal of a matrix of x's shape, on the host."""
    rows, columns = affordable(map(int, x.shape), "EyeLike")
    name = dtype or str(x.dtype).removeprefix("torch.")
    return np.eye(rows, columns, offset, dtype=name)


def _non_zero(node: Node, builder: Builder) -> None:
    builder.call(node, non_zero, [node.input(0)])


def non_zero(x: Value) -> Host:
    """The indices of all numbers but zero, [axes, found], of a host array."""
    return np.array(np.atleast_1d(host(x, "NonZero's input")).nonzero(), np.int64)


def _compress(node: Node, builder: Builder) -> None:
    axis = node.attributes.int("axis")
    builder.call(node, partial(compress, axis=axis), [node.input(0), node.input(1)])


def compress(x: Value, condition: Value, axis: int | None) -> Value:
    """The slices along an axis (or the numbers of the flat value) for which the condition holds."""
    kept = host(condition, "Compress's condition").reshape(-1).nonzero()[0]
    flat = x.reshape(-1) if axis is None else x
    along = 0 if axis is None else axis_of(axis, len(x.shape), "Compress")
    if isinstance(flat, Tensor):
        return flat.index_select(along, tensors(flat, kept)[1])
    return np.take(flat, kept, axis=along)


OPERATORS = {
    "TopK": _top_k,
    "ArgMax": _arg(torch.argmax),
    "ArgMin": _arg(torch.argmin),
    "Hardmax": _hardmax,
    "OneHot": _one_hot,
    "Trilu": _trilu,
    "CumSum": _cum_sum,
    "CumProd": _cum_sum,
    "EyeLike": _eye_like,
    "NonZero": _non_zero,
    "Compress": _compress,
}
