"""Operators that pick parts of a value."""

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pruning.errors import SecateurError
from pruning.formats.onnx.binding import Layout
from pruning.formats.onnx.builder import Builder, Node
from pruning.formats.onnx.graph import Constant
from pruning.formats.onnx.ops.layers import plain
from pruning.formats.onnx.values import Value, affordable, axis_of, ints, is_host, tensors


def _gather(node: Node, builder: Builder) -> None:
    axis = node.attributes.int("axis", 0)
    table, indices = builder.constant(node.input(0)), node.input(1)
    if table is not None and axis == 0 and _is_table(table) and builder.constant(indices) is None:
        layout = Layout(table.permutation, table.shape)
        if not builder.tied_otherwise(table, layout):
            rows, width = table.shape
            name = node.inputs[0] or ""
            name = name if name.endswith(".weight") else table.source
            path = builder.place(plain(Lookup, rows, width), (name, None, node), "embedding")
            builder.bind(node, f"{path}.weight", table, layout, tied=True)
            builder.layer(node, path, indices or "", node.one_output())
            return
    builder.call(node, partial(gather, axis=axis), [node.input(0), node.input(1)])


class Lookup(nn.Embedding):
    """An embedding whose negative indices count from the end, as Gather's do."""

    def forward(self, input: Value) -> Tensor:
        """The rows of the table at the indices."""
        (indices,) = tensors(input)
        if indices.device.type != "meta":  # where comparing takes seconds to import
            indices = torch.where(indices < 0, indices + self.num_embeddings, indices)
        return nn.functional.embedding(indices.long(), self.weight)


def _is_table(constant: Constant) -> bool:
    """Whether a constant is a matrix of real numbers out of the file."""
    return bool(constant.source) and len(constant.shape) == 2 and constant.is_real


def gather(x: Value, indices: Value, axis: int) -> Value:
    """The slices of x along an axis at the indices; negative ones count from the end."""
    axis = axis_of(axis, len(x.shape), "Gather")
    count = int(x.shape[axis])
    if is_host(indices) and ((indices >= count) | (indices < -count)).any():
        raise SecateurError("model_invalid", f"Gather takes indices outside {count} slices.")
    if is_host(x, indices):
        affordable((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]), "Gather")
        return np.take(x, indices, axis=axis)
    if is_host(indices) and indices.ndim == 0 and isinstance(x, Tensor):
        return x.select(axis, int(indices) % count)
    x, indices = tensors(x, indices)
    if indices.device.type != "meta":  # where comparing takes seconds to import
        indices = torch.where(indices < 0, indices + count, indices)
    indices = indices.long()
    picked = x.index_select(axis, indices.reshape(-1))
    return picked.reshape((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))


def _slice(node: Node, builder: Builder) -> None:
    if builder.opset >= 10:
        builder.call(node, slice_axes, [node.input(i) for i in range(5)])
        return
    starts, ends, axes = (node.attributes.ints(name) for name in ("starts", "ends", "axes"))
    if starts is None or ends is None:
        raise node.invalid("no starts or no ends")
    given = [None if v is None else np.array(v, np.int64) for v in (starts, ends, axes)]
    builder.call(node, partial(slice_fixed, bounds=tuple(given)), [node.input(0)])


def slice_fixed(x: Value, bounds: tuple[Any, ...]) -> Value:
    """Parts of x along axes with steps of one, as before opset 10."""
    starts, ends, axes = bounds
    return slice_axes(x, starts, ends, axes, None)


def slice_axes(
    x: Value, starts: Value, ends: Value, axes: Value | None, steps: Value | None
) -> Value:
    """Parts of x along axes, as Python slices it."""
    first, stop = ints(starts, "Slice's starts"), ints(ends, "Slice's ends")
    places = list(range(len(first))) if axes is None else ints(axes, "Slice's axes")
    stride = [1] * len(first) if steps is None else ints(steps, "Slice's steps")
    if not len(first) == len(stop) == len(places) == len(stride) or 0 in stride:
        raise SecateurError("model_invalid", "Slice: starts, ends, axes and steps do not agree.")
    for start, end, place, step in zip(first, stop, places, stride, strict=True):
        axis = axis_of(place, len(x.shape), "Slice")
        bounds = slice(start, end, step).indices(int(x.shape[axis]))
        x = _cut(x, axis, range(*bounds))
    return x


def _cut(x: Value, axis: int, kept: range) -> Value:
    before = (slice(None),) * axis
    if len(kept) == 0:
        return x[(*before, slice(0, 0))]
    if kept.step > 0:
        return x[(*before, slice(kept[0], kept[-1] + 1, kept.step))]
    turned = x[(*before, slice(kept[-1], kept[0] + 1, -kept.step))]
    return turned.flip(axis) if isinstance(turned, Tensor) else np.flip(turned, axis)


def _split(node: Node, builder: Builder) -> None:
    axis, count = node.attributes.int("axis", 0), len(node.outputs)
    if node.attributes.int("num_outputs", count) != count:
        raise node.invalid(f"num_outputs differs from its {count} outputs")
    fixed = node.attributes.ints("split") if builder.opset < 13 else None
    function = partial(split, axis=axis, count=count, fixed=fixed)
    builder.call(node, function, [node.input(0), node.input(1)], named(node))


def named(node: Node) -> list[str]:
    """The outputs of a node, with a name also where the file has none."""
    return [name or f"{node.outputs[0]}/unread {i}" for i, name in enumerate(node.outputs)]


def split(
    x: Value, sizes: Value | None, axis: int, count: int, fixed: list[int] | None = None
) -> tuple[Value, ...]:
    """X cut along an axis into parts of the given sizes, or into `count` of equal size."""
    axis = axis_of(axis, len(x.shape), "Split")
    total = int(x.shape[axis])
    if sizes is None and fixed is not None:
        lengths = fixed
    elif sizes is None:
        part = -(-total // count)
        lengths = [max(0, min(part, total - i * part)) for i in range(count)]
    else:
        lengths = ints(sizes, "Split's sizes")
    if sum(lengths) != total or len(lengths) != count or min(lengths) < 0:
        raise SecateurError("model_invalid", f"Split of {total} into {lengths}.")
    parts, at = [], 0
    for length in lengths:
        parts.append(_cut(x, axis, range(at, at + length)))
        at += length
    return tuple(parts)


def _where(node: Node, builder: Builder) -> None:
    builder.call(node, where, [node.input(i) for i in range(3)])


def where(condition: Value, x: Value, y: Value) -> Value:
    """X where the condition holds, y elsewhere."""
    if is_host(condition, x, y):
        affordable(np.broadcast_shapes(condition.shape, x.shape, y.shape), "Where")
        return np.where(condition, x, y)
    mask, first, second = tensors(condition, x, y)
    return torch.where(mask, first, second)


OPERATORS = {"Gather": _gather, "Slice": _slice, "Split": _split, "Where": _where}
