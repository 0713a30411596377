"""Operators that pass a value on or make one from a shape or a type."""

from functools import partial

import numpy as np
import torch
from onnx import helper

from pruning.errors import SecateurError
from pruning.formats.onnx.binding import computing_dtype
from pruning.formats.onnx.builder import Builder, Node
from pruning.formats.onnx.values import LARGEST, Host, Value, affordable, ints, is_host


def _identity(node: Node, builder: Builder) -> None:
    builder.call(node, same, [node.input(0)])


def same(x: Value) -> Value:
    """X itself."""
    return x


def _dropout(node: Node, builder: Builder) -> None:
    node.attributes.int("seed")
    training = builder.constant(node.input(2))
    if node.input(2) and (training is None or training.value.any()):
        raise node.unsupported("training_mode", "Export the model in evaluation mode.")
    _identity(node, builder)


def _cast(node: Node, builder: Builder) -> None:
    node.attributes.int("saturate")
    node.attributes.string("round_mode")
    to = node.attributes.int("to")
    try:
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(to))
    except KeyError:
        raise node.invalid(f"an unknown type {to}") from None
    if dtype.kind not in "fiub" or str(dtype).startswith(("bf", "float8", "float4", "int4", "u4")):
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
    (first,), (stop,), (step,) = (ints(v, "Range's bounds") for v in (start, limit, delta))
    if step == 0 or abs((stop - first) / step) > LARGEST:
        raise SecateurError("model_too_large", f"Range({first}, {stop}, {step}) is too long.")
    return np.arange(first, stop, step, dtype=np.asarray(start).dtype)


OPERATORS = {
    "Identity": _identity,
    "Dropout": _dropout,
    "Cast": _cast,
    "ConstantOfShape": _constant_of_shape,
    "Range": _range,
}
