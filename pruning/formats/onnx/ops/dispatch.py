"""One function for both kinds of value: on host arrays it runs on the CPU and gives host arrays."""

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import torch
from onnx import AttributeProto
from torch import Tensor

from pruning.errors import SecateurError
from pruning.formats.onnx.builder import Builder, Node
from pruning.formats.onnx.values import TRIAL, TooDear, Value, affordable, is_host, tensors


def compute(function: Callable[..., Any], *values: Value | None) -> Any:
    """The function of the values as tensors on one device; host arrays give host arrays.

    The function must ask `values.affordable` before it makes more numbers than it was given.
    """
    given = [value for value in values if value is not None]
    if is_host(*given):
        # Also while a pass without data is priced, whose default device is meta, and inside of
        # torch.func, which would wrap results that no derivative goes through.
        with torch.device("cpu"), torch._C._DisableFuncTorch():
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


_MOST = 1 << 27


def priced(x: Tensor, shape: Iterable[int], what: str, most: int = _MOST) -> tuple[int, ...]:
    """The shape of a value about to be made, whose memory nothing else has checked yet.

    Results are priced from their shapes before a graph runs where its inputs have fixed sizes;
    this is for the others, and for what an operator makes on the way to a small result.

    Raises:
        SecateurError: `model_too_large` over `most` numbers, where that is more than a few times
            those of x too, and `model_invalid` for a negative size.
        TooDear: While intake tries the graph, over `TRIAL` numbers.
    """
    sizes = tuple(int(size) for size in shape)
    if any(size < 0 for size in sizes):
        raise SecateurError("model_invalid", f"{what} of shape {list(sizes)[:16]}.")
    # An axis of size 0 must not hide how long the others are.
    numbers = math.prod(max(size, 1) for size in sizes)
    if numbers > max(most, 16 * x.numel()):
        raise SecateurError("model_too_large", f"{what} makes a value of shape {list(sizes)[:16]}.")
    trial = TRIAL.get()
    if trial is not None and numbers > trial and not x.is_meta:
        raise TooDear
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
