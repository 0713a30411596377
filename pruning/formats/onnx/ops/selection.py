"""Operators that pick parts of a value."""

from functools import partial

import numpy as np
import torch
from torch import Tensor

from pruning.errors import SecateurError
from pruning.formats.onnx.builder import Builder, Node
from pruning.formats.onnx.values import Value, affordable, axis_of, ints, is_host, tensors


def _gather(node: Node, builder: Builder) -> None:
    axis = node.attributes.int("axis", 0)
    builder.call(node, partial(gather, axis=axis), [node.input(0), node.input(1)])


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
    indices = torch.where(indices < 0, indices + count, indices).long()
    picked = x.index_select(axis, indices.reshape(-1))
    return picked.reshape((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))


def _slice(node: Node, builder: Builder) -> None:
    builder.call(node, slice_axes, [node.input(i) for i in range(5)])


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
    function = partial(split, axis=axis, count=count)
    builder.call(node, function, [node.input(0), node.input(1)], node.outputs)


def split(x: Value, sizes: Value | None, axis: int, count: int) -> tuple[Value, ...]:
    """X cut along an axis into parts of the given sizes, or into `count` of equal size."""
    axis = axis_of(axis, len(x.shape), "Split")
    total = int(x.shape[axis])
    if sizes is None:
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
