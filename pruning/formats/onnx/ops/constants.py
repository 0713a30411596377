"""Operators that pass a value on or make one from a shape or a type."""

import math
from functools import partial

import numpy as np
import torch
from onnx import helper
from torch import nn

from pruning.errors import SecateurError
from pruning.formats.onnx.binding import computing_dtype
from pruning.formats.onnx.builder import Builder, Node
from pruning.formats.onnx.values import LARGEST, Host, Value, affordable, ints, is_host, number

_CAST = frozenset(
    [
        "bool",
        "int8",
        "int16",
        "int32",
        "int64",
        "uint8",
        "uint16",
        "uint32",
        "uint64",
        "float16",
        "bfloat16",
        "float32",
        "float64",
    ]
)


def _identity(node: Node, builder: Builder) -> None:
    builder.call(node, same, [node.input(0)])


def same(x: Value) -> Value:
    """X itself."""
    return x


def _dropout(node: Node, builder: Builder) -> None:
    """Whatever mode the file asks for, evaluation keeps every number; training drops again."""
    node.attributes.int("seed")
    ratio = node.attributes.float("ratio", 0.5)
    if node.input(1):
        given = builder.constant(node.input(1))
        if given is None or given.value.size != 1:
            raise node.unsupported("a ratio that is not a constant")
        ratio = float(given.value.reshape(-1)[0])
    if not 0 <= ratio < 1:
        raise node.invalid(f"a ratio of {ratio:g}")
    path = builder.place(nn.Dropout(ratio), ("", None, node), "dropout")
    builder.layer(node, path, node.inputs[0] or "", node.one_output())


def _cast(node: Node, builder: Builder) -> None:
    node.attributes.int("saturate")
    node.attributes.string("round_mode")
    to = node.attributes.int("to")
    try:
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(to))
    except KeyError:
        raise node.invalid(f"an unknown type {to}") from None
    if dtype.name not in _CAST:
        raise node.unsupported(f"a cast to {dtype.name}")
    builder.call(node, partial(cast, dtype=computing_dtype(dtype)), [node.input(0)])


def cast(x: Value, dtype: np.dtype) -> Value:
    """X in another type."""
    if is_host(x):
        with np.errstate(invalid="ignore"):
            return np.asarray(x).astype(dtype)
    return x.to(getattr(torch, dtype.name))  # type: ignore[union-attr]


def _constant_of_shape(node: Node, builder: Builder) -> None:
    value = node.attributes.tensor("value")
    fill = np.zeros(1, np.float32) if value is None else value
    if fill.size != 1 or fill.dtype.kind not in "fiub":
        raise node.unsupported("a value that is not one number")
    fill = fill.astype(computing_dtype(fill.dtype))
    builder.call(node, partial(constant_of_shape, fill=fill), [node.input(0)])


def constant_of_shape(shape: Value, fill: Host) -> Host:
    """A host array of that shape, filled with one number."""
    sizes = ints(shape, "ConstantOfShape's shape")
    if any(s < 0 for s in sizes):
        raise SecateurError("model_invalid", f"ConstantOfShape of shape {sizes}.")
    return np.full(affordable(sizes, "ConstantOfShape"), fill.reshape(-1)[0], fill.dtype)


def _range(node: Node, builder: Builder) -> None:
    node.attributes.int("stash_type")
    builder.call(node, arange, [node.input(i) for i in range(3)])


def arange(start: Value, limit: Value, delta: Value) -> Host:
    """start, start + delta, ... below limit, on the host."""
    first, stop, step = (number(v, "Range's bounds") for v in (start, limit, delta))
    if step == 0 or not abs((stop - first) / step) <= LARGEST:
        raise SecateurError("model_too_large", f"Range({first}, {stop}, {step}) is too long.")
    count = max(0, math.ceil((stop - first) / step))
    return (first + np.arange(count) * step).astype(np.asarray(start).dtype)


OPERATORS = {
    "Identity": _identity,
    "Dropout": _dropout,
    "Cast": _cast,
    "ConstantOfShape": _constant_of_shape,
    "Range": _range,
}
