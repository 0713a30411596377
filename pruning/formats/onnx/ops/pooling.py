"""Pooling over one to three spatial axes, and over all of them."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from pruning.formats.onnx.builder import Builder, Node
from pruning.formats.onnx.ops.spatial import Window, pad
from pruning.formats.onnx.values import Value, tensors

_MAX = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVERAGE = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def window_of(node: Node) -> Window:
    """The window of a pooling node, which has to say its kernel."""
    kernel = node.attributes.ints("kernel_shape")
    if not kernel:
        raise node.invalid("no kernel_shape")
    return Window(node, kernel)


def build_max_pool(node: Node, builder: Builder) -> None:
    """MaxPool whose places nobody reads."""
    window = window_of(node)
    ceil = bool(node.attributes.int("ceil_mode", 0)) and window.auto_pad == "NOTSET"
    node.attributes.int("storage_order")  # orders the places
    builder.call(node, partial(max_pool, window=window, ceil=ceil), [node.input(0)])


def max_pool(x: Value, window: Window, ceil: bool) -> Tensor:
    """The largest number in each window; padding never wins."""
    (x,) = tensors(x)
    pads = window.padding(x.shape[2:])
    padding: tuple[int, ...] = (0,) * len(pads)
    if all(b == a and b <= k // 2 for (b, a), k in zip(pads, window.kernel, strict=True)):
        padding = tuple(before for before, _ in pads)
    else:
        x = pad(x, pads, -torch.inf)
    return _MAX[len(pads)](x, window.kernel, window.strides, padding, window.dilations, ceil)


def _average_pool(node: Node, builder: Builder) -> None:
    window = window_of(node)
    ceil = bool(node.attributes.int("ceil_mode", 0)) and window.auto_pad == "NOTSET"
    include = bool(node.attributes.int("count_include_pad", 0))
    if set(window.dilations) != {1}:
        raise node.unsupported("dilations")
    function = partial(average_pool, window=window, ceil=ceil, include=include)
    builder.call(node, function, [node.input(0)])


def average_pool(x: Value, window: Window, ceil: bool, include: bool) -> Tensor:
    """The mean of each window; `include` counts the padding as zeros, else it is left out."""
    (x,) = tensors(x)
    pads = window.padding(x.shape[2:])
    pool = partial(
        _AVERAGE[len(pads)], kernel_size=window.kernel, stride=window.strides, ceil_mode=ceil
    )
    if all(b == a and b <= k // 2 for (b, a), k in zip(pads, window.kernel, strict=True)):
        return pool(x, padding=tuple(b for b, _ in pads), count_include_pad=include)
    mean = pool(pad(x, pads))
    if include:
        return mean
    inside = pad(torch.ones_like(x[:1, :1]), pads)
    return mean / pool(inside)


def _global(function):  # type: ignore[no-untyped-def]
    def build(node: Node, builder: Builder) -> None:
        builder.call(node, function, [node.input(0)])

    return build


def global_average_pool(x: Value) -> Tensor:
    """The mean over all spatial axes, kept as axes of size 1."""
    (x,) = tensors(x)
    return x.mean(dim=tuple(range(2, x.dim())), keepdim=True)


def global_max_pool(x: Value) -> Tensor:
    """The maximum over all spatial axes, kept as axes of size 1."""
    (x,) = tensors(x)
    return x.amax(dim=tuple(range(2, x.dim())), keepdim=True)


OPERATORS = {
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global(global_average_pool),
    "GlobalMaxPool": _global(global_max_pool),
}
