"""Operators that arrange numbers anew without changing them."""

import math
from functools import partial

import numpy as np
import torch
from torch import Tensor

from pruning.errors import SecateurError
from pruning.formats.onnx.builder import Builder, Node
from pruning.formats.onnx.values import (
    Host,
    Value,
    affordable,
    axis_of,
    ints,
    is_host,
    tensors,
)


def shape_of(x: Value) -> list[int]:
    """The sizes of a value as Python ints."""
    return [int(size) for size in x.shape]


def _flatten(node: Node, builder: Builder) -> None:
    axis = node.attributes.int("axis", 1)
    builder.call(node, partial(flatten, axis=axis), [node.input(0)])


def flatten(x: Value, axis: int) -> Value:
    """X as a matrix: the axes before `axis`, and those from it on."""
    shape = shape_of(x)
    axis = axis if axis == len(shape) else axis_of(axis, len(shape), "Flatten")
    return x.reshape((math.prod(shape[:axis]), math.prod(shape[axis:])))


def _reshape(node: Node, builder: Builder) -> None:
    allowzero = bool(node.attributes.int("allowzero", 0))
    builder.call(node, partial(reshape, allowzero=allowzero), [node.input(0), node.input(1)])


def reshape(x: Value, shape: Value, allowzero: bool) -> Value:
    """X in another shape; -1 is inferred, 0 keeps the size unless `allowzero`."""
    sizes = ints(shape, "Reshape's shape")
    have = shape_of(x)
    if not allowzero:
        if any(s == 0 and i >= len(have) for i, s in enumerate(sizes)):
            raise SecateurError("model_invalid", f"Reshape of {have} to {sizes}.")
        sizes = [have[i] if s == 0 else s for i, s in enumerate(sizes)]
    return x.reshape(tuple(sizes))


def _axes(node: Node) -> list[int] | None:
    return node.attributes.ints("axes")


def _squeeze(node: Node, builder: Builder) -> None:
    builder.call(node, partial(squeeze, fixed=_axes(node)), [node.input(0), node.input(1)])


def squeeze(x: Value, axes: Value | None, fixed: list[int] | None) -> Value:
    """X without the given axes of size 1, or without all of them."""
    shape = shape_of(x)
    given = fixed if axes is None else ints(axes, "Squeeze's axes")
    if given is None:
        gone = {i for i, size in enumerate(shape) if size == 1}
    else:
        gone = {axis_of(axis, len(shape), "Squeeze") for axis in given}
    if any(shape[i] != 1 for i in gone):
        raise SecateurError("model_invalid", f"Squeeze of axes {sorted(gone)} of shape {shape}.")
    return x.reshape(tuple(size for i, size in enumerate(shape) if i not in gone))


def _unsqueeze(node: Node, builder: Builder) -> None:
    builder.call(node, partial(unsqueeze, fixed=_axes(node)), [node.input(0), node.input(1)])


def unsqueeze(x: Value, axes: Value | None, fixed: list[int] | None) -> Value:
    """X with new axes of size 1 at the given places of the result."""
    shape = shape_of(x)
    given = (fixed or []) if axes is None else ints(axes, "Unsqueeze's axes")
    rank = len(shape) + len(given)
    new = {axis_of(axis, rank, "Unsqueeze") for axis in given}
    old = iter(shape)
    return x.reshape(tuple(1 if i in new else next(old) for i in range(rank)))


def _transpose(node: Node, builder: Builder) -> None:
    order = node.attributes.ints("perm")
    builder.call(node, partial(transpose, order=order), [node.input(0)])


def transpose(x: Value, order: list[int] | None) -> Value:
    """X with its axes in another order; reversed where none is given."""
    dims = tuple(order) if order is not None else tuple(range(len(x.shape)))[::-1]
    return x.permute(dims) if isinstance(x, Tensor) else np.transpose(x, dims)


def _concat(node: Node, builder: Builder) -> None:
    axis = node.attributes.int("axis")
    builder.call(node, partial(concat, axis), list(node.inputs))


def concat(axis: int, *values: Value) -> Value:
    """The values one after the other along an axis."""
    if is_host(*values):
        affordable([sum(math.prod(shape_of(v)) for v in values)], "Concat")
        return np.concatenate(values, axis=axis)
    return torch.cat(tensors(*values), dim=axis)


def _shape(node: Node, builder: Builder) -> None:
    start, end = node.attributes.int("start", 0), node.attributes.int("end")
    builder.call(node, partial(shape_slice, start=start, end=end), [node.input(0)])


def shape_slice(x: Value, start: int, end: int | None) -> Host:
    """The sizes from axis `start` to before `end`."""
    return np.array(shape_of(x)[start:end], dtype=np.int64)


def _size(node: Node, builder: Builder) -> None:
    builder.call(node, size, [node.input(0)])


def size(x: Value) -> Host:
    """How many numbers the value holds."""
    return np.array(math.prod(shape_of(x)), dtype=np.int64)


def _expand(node: Node, builder: Builder) -> None:
    builder.call(node, expand, [node.input(0), node.input(1)])


def expand(x: Value, shape: Value) -> Value:
    """X broadcast with a shape."""
    wanted = ints(shape, "Expand's shape")
    if isinstance(x, Tensor):
        return x.expand(np.broadcast_shapes(x.shape, tuple(wanted)))
    return np.broadcast_to(x, affordable(np.broadcast_shapes(x.shape, tuple(wanted)), "Expand"))


OPERATORS = {
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Transpose": _transpose,
    "Concat": _concat,
    "Shape": _shape,
    "Size": _size,
    "Expand": _expand,
}
