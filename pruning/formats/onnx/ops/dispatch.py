"""One function for both kinds of value: on host arrays it runs on the CPU and gives host arrays."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import torch
from onnx import AttributeProto
from torch import Tensor

from pruning.errors import SecateurError
from pruning.formats.onnx.builder import Builder, Node
from pruning.formats.onnx.values import LARGEST, Value, affordable, is_host, tensors


def compute(function: Callable[..., Any], *values: Value | None) -> Any:
    """The function of the values as tensors on one device; host arrays give host arrays.

    The function must ask `values.affordable` before it makes more numbers than it was given.
    """
    given = [value for value in values if value is not None]
    if is_host(*given):
        # Also while a pass without data is priced, whose default device is meta.
        with torch.device("cpu"):
            return _both(lambda t: t.numpy(), function(*map(_on_cpu, values)))
    placed = iter(tensors(*given))
    return function(*(None if value is None else next(placed) for value in values))


def _on_cpu(value: Value | None) -> Tensor | None:
    return None if value is None else torch.from_numpy(np.array(value, order="C"))


def _both(change: Callable[[Any], Any], result: Any) -> Any:
    return tuple(map(change, result)) if isinstance(result, tuple) else change(result)


def broadcast(function: Callable[..., Any], *values: Value) -> Any:
    """As `compute` for a function whose result has the broadcast shape of its arguments."""
    if is_host(*values):
        affordable(np.broadcast_shapes(*(np.shape(v) for v in values)), "An operation")
    return compute(function, *values)


def priced(x: Tensor, shape: Iterable[int], what: str) -> tuple[int, ...]:
    """The shape of a result; that of a tensor may have any size that the file's limits allow.

    Raises:
        SecateurError: `model_too_large` where a small tensor would grow beyond every limit, and
            `model_invalid` for a negative size.
    """
    sizes = tuple(int(size) for size in shape)
    if any(size < 0 for size in sizes):
        raise SecateurError("model_invalid", f"{what} of shape {list(sizes)[:16]}.")
    if x.device.type == "meta" or np.prod([float(s) for s in sizes]) <= max(LARGEST, x.numel()):
        return sizes
    return _within(sizes, what)


_MOST = 1 << 30


def _within(sizes: tuple[int, ...], what: str) -> tuple[int, ...]:
    if np.prod([float(s) for s in sizes]) > _MOST:
        raise SecateurError("model_too_large", f"{what} makes a value of shape {list(sizes)[:16]}.")
    return sizes


def elementwise(function: Callable[..., Any], arity: int = 1, **options: Any) -> Any:
    """The builder of an operator without attributes that works number by number."""

    def build(node: Node, builder: Builder) -> None:
        inputs = [node.input(i) for i in range(arity)]
        builder.call(node, partial(broadcast, partial(function, **options)), inputs)

    return build


def texts(node: Node, name: str) -> list[str]:
    """An attribute that is a list of texts, empty where it is left out."""
    value = _taken(node, name, AttributeProto.STRINGS)
    return [] if value is None else [text.decode("utf-8", "replace") for text in value.strings]


def reals(node: Node, name: str) -> list[float]:
    """An attribute that is a list of real numbers, empty where it is left out."""
    value = _taken(node, name, AttributeProto.FLOATS)
    return [] if value is None else list(value.floats)


def _taken(node: Node, name: str, kind: int) -> AttributeProto | None:
    value = node.attributes._left.pop(name, None)
    if value is not None and (value.ref_attr_name or value.type != kind):
        raise node.unsupported(f"an attribute {name} of another type")
    return value
