"""Pooling that the plain kinds leave out: by norm, with the places of maxima, and its inverse."""

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from pruning.errors import SecateurError
from pruning.formats.onnx.builder import Builder, Node
from pruning.formats.onnx.ops.dispatch import priced
from pruning.formats.onnx.ops.pooling import build_max_pool, window_of
from pruning.formats.onnx.ops.spatial import Pads, Window, pad
from pruning.formats.onnx.values import LARGEST, Value, ints, tensors

_CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_MAXIMA = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}


def _max_pool(node: Node, builder: Builder) -> None:
    indices = node.outputs[1] if len(node.outputs) > 1 else ""
    if not builder.graph.uses.get(indices):
        build_max_pool(node, builder)
        return
    window = window_of(node)
    ceil = bool(node.attributes.int("ceil_mode", 0)) and window.auto_pad == "NOTSET"
    columns = bool(node.attributes.int("storage_order", 0))
    function = partial(max_pool, window=window, ceil=ceil, columns=columns)
    builder.call(node, function, [node.input(0)], node.outputs)


def max_pool(x: Value, window: Window, ceil: bool, columns: bool) -> tuple[Tensor, Tensor]:
    """The largest numbers, and where they stand in the whole flat input.

    With `columns` the spatial axes count in the order first to last.
    """
    (x,) = tensors(x)
    sizes = list(x.shape[2:])
    pads = window.padding(sizes)
    _check_padding(x, pads)
    padded = pad(x, pads, -torch.inf)
    pool = partial(
        _MAXIMA[len(pads)],
        kernel_size=window.kernel,
        stride=window.strides,
        dilation=window.dilations,
        ceil_mode=ceil,
        return_indices=True,
    )
    values, flat = pool(padded)
    wide = list(padded.shape[2:])
    places, rest = [], flat
    for (before, _), size in reversed(list(zip(pads, wide, strict=True))):
        places.append(rest % size - before)
        rest = rest // size
    # Innermost axis first, with the numbers that lie between two of its places.
    order = list(zip(places, reversed(sizes), strict=True))
    total, stride = torch.zeros_like(flat), 1
    for place, size in reversed(order) if columns else order:
        total = total + place * stride
        stride *= size
    planes = torch.arange(x.shape[0] * x.shape[1], device=x.device) * math.prod(sizes)
    return values, total + planes.reshape(x.shape[0], x.shape[1], *(1 for _ in sizes))


def _check_padding(x: Tensor, pads: Pads) -> None:
    more = (0, 0, *(before + after for before, after in pads))
    shape = [size + extra for size, extra in zip(x.shape, more, strict=True)]
    priced(x, shape, "The padding of a pool", LARGEST)


def _max_unpool(node: Node, builder: Builder) -> None:
    window = window_of(node)
    builder.call(node, partial(max_unpool, window=window), [node.input(i) for i in range(3)])


def max_unpool(x: Value, indices: Value, shape: Value | None, window: Window) -> Tensor:
    """Zeros, with the numbers at the places where they stood before pooling."""
    x, indices = tensors(x, indices)
    steps = zip(x.shape[2:], window.strides, window.pads, window.kernel, strict=True)
    inferred = [(size - 1) * step - sum(pads) + kernel for size, step, pads, kernel in steps]
    inferred = [int(x.shape[0]), int(x.shape[1]), *inferred]
    result = inferred if shape is None else ints(shape, "MaxUnpool's output_shape")
    if len(result) != x.dim() or result[:2] != inferred[:2]:
        raise SecateurError("model_invalid", f"MaxUnpool of {list(x.shape)} to {result[:16]}.")
    priced(x, result, "MaxUnpool")
    priced(x, inferred, "MaxUnpool", LARGEST)
    # The indices count in the inferred shape; a larger one given has its zeros at the ends.
    zeros = x.new_zeros(math.prod(inferred))
    found = zeros.scatter(0, indices.reshape(-1), x.reshape(-1)).reshape(inferred)
    more = [b - a for a, b in zip(inferred, result, strict=True)]
    return F.pad(found, [n for size in reversed(more[2:]) for n in (0, size)])


def _lp_pool(node: Node, builder: Builder) -> None:
    window = window_of(node)
    ceil = bool(node.attributes.int("ceil_mode", 0)) and window.auto_pad == "NOTSET"
    p = node.attributes.int("p", 2)
    if p < 1:
        raise node.invalid(f"p={p}")
    builder.call(node, partial(lp_pool, window=window, ceil=ceil, p=p), [node.input(0)])


def lp_pool(x: Value, window: Window, ceil: bool, p: int) -> Tensor:
    """The p-norm of each window, the padding being zeros."""
    (x,) = tensors(x)
    pads = list(window.padding(x.shape[2:]))
    for i, size in enumerate(x.shape[2:]):
        before, after = pads[i]
        span = (window.kernel[i] - 1) * window.dilations[i] + 1
        over = size + before + after - span
        if over < 0:
            raise SecateurError("model_invalid", "LpPool: its kernel is larger than its input.")
        if ceil:
            count = -(-over // window.strides[i])
            # A window that would start in the padding at the end is left out.
            count -= count * window.strides[i] >= size + before
            pads[i] = (before, after + max(0, count * window.strides[i] - over))
    _check_padding(x, tuple(pads))
    powers = pad(x.abs() ** p, tuple(pads))
    flat = powers.reshape(-1, 1, *powers.shape[2:])
    ones = x.new_ones((1, 1, *window.kernel))
    sums = _CONVOLUTIONS[len(pads)](flat, ones, None, window.strides, 0, window.dilations)
    sums = sums.reshape(x.shape[0], x.shape[1], *sums.shape[2:])
    return root(sums, p)


def root(sums: Tensor, p: int) -> Tensor:
    """The p-th root, with a derivative of 0 at 0."""
    if p == 1:
        return sums
    empty = sums == 0
    return torch.where(empty, sums, torch.where(empty, torch.ones_like(sums), sums) ** (1 / p))


def _global_lp_pool(node: Node, builder: Builder) -> None:
    p = node.attributes.int("p", 2)
    if p < 1:
        raise node.invalid(f"p={p}")
    builder.call(node, partial(global_lp_pool, p=p), [node.input(0)])


def global_lp_pool(x: Value, p: int) -> Tensor:
    """The p-norm over all spatial axes, kept as axes of size 1."""
    (x,) = tensors(x)
    return root((x.abs() ** p).sum(dim=tuple(range(2, x.dim())), keepdim=True), p)


OPERATORS = {
    "MaxPool": _max_pool,
    "MaxUnpool": _max_unpool,
    "LpPool": _lp_pool,
    "GlobalLpPool": _global_lp_pool,
}
