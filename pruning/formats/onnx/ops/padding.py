"""Pad in all of its modes, and cropping or padding about the centre."""

from functools import partial

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from pruning.errors import SecateurError
from pruning.formats.onnx.builder import Builder, Node
from pruning.formats.onnx.ops.dispatch import compute, priced
from pruning.formats.onnx.values import (
    Host,
    Value,
    affordable,
    axis_of,
    ints,
    is_host,
    number,
    tensors,
)

_MODES = ("constant", "reflect", "edge", "wrap")


def _pad(node: Node, builder: Builder) -> None:
    mode = node.attributes.string("mode", "constant")
    if mode not in _MODES:
        raise node.invalid(f"mode={mode!r}")
    # Before opset 11 pads and value are attributes.
    fixed, value = node.attributes.ints("pads"), node.attributes.float("value", 0.0)
    function = partial(pad, mode=mode, fixed=fixed, fixed_value=value)
    builder.call(node, function, [node.input(i) for i in range(4)])


def pad(
    x: Value,
    pads: Value | None,
    value: Value | None,
    axes: Value | None,
    mode: str,
    fixed: list[int] | None,
    fixed_value: float,
) -> Value:
    """X with more (or for negative numbers fewer) places before and after the given axes."""
    rank = len(x.shape)
    sizes = (fixed or []) if pads is None else ints(pads, "Pad's pads")
    given = range(rank) if axes is None else ints(axes, "Pad's axes")
    places = [axis_of(axis, rank, "Pad") for axis in given]
    if len(sizes) != 2 * len(places) or len(set(places)) != len(places):
        raise SecateurError("model_invalid", f"Pad has {len(sizes)} pads for {len(places)} axes.")
    both = [(0, 0)] * rank
    for i, axis in enumerate(places):
        both[axis] = (sizes[i], sizes[i + len(places)])
    shape = [int(s) + sum(p) for s, p in zip(x.shape, both, strict=True)]
    if is_host(x):
        affordable(shape, "Pad")
    fill = fixed_value if value is None else number(value, "Pad's value")
    found: Value = compute(partial(padded, both=both, mode=mode, fill=fill), x)
    return found


def padded(x: Tensor, both: list[tuple[int, int]], mode: str, fill: float) -> Tensor:
    """X with these numbers of places more before and after each axis."""
    priced(x, [s + sum(p) for s, p in zip(x.shape, both, strict=True)], "Pad")
    if mode == "constant":
        flat = [size for axis in reversed(both) for size in axis]
        while flat and flat[-2:] == [0, 0]:
            flat = flat[:-2]
        return F.pad(x, flat, value=fill) if flat else x
    for axis, (before, after) in enumerate(both):
        if before or after:
            places = sources(mode, x.shape[axis], before, after)
            x = x.index_select(axis, tensors(x, places)[1])
    return x


def sources(mode: str, size: int, before: int, after: int) -> Host:
    """Which of `size` places each place of the padded axis repeats."""
    if size < 1:
        raise SecateurError("model_invalid", f"Pad with mode={mode!r} of an empty axis.")
    places = np.arange(-before, size + after)
    if mode == "edge":
        return np.clip(places, 0, size - 1)
    if mode == "wrap":
        return places % size
    period = max(1, 2 * (size - 1))
    places = places % period
    return np.minimum(places, period - places) if size > 1 else np.zeros_like(places)


def _center_crop_pad(node: Node, builder: Builder) -> None:
    axes = node.attributes.ints("axes")
    builder.call(node, partial(center_crop_pad, axes=axes), [node.input(0), node.input(1)])


def center_crop_pad(x: Value, shape: Value, axes: list[int] | None) -> Value:
    """X cut, or padded with zeros, about its centre to the given sizes."""
    rank = len(x.shape)
    sizes = ints(shape, "CenterCropPad's shape")
    places = [axis_of(a, rank, "CenterCropPad") for a in (range(rank) if axes is None else axes)]
    if len(sizes) != len(places) or min(sizes, default=0) < 0:
        raise SecateurError("model_invalid", f"CenterCropPad to {sizes} for {len(places)} axes.")
    both = [(0, 0)] * rank
    for axis, size in zip(places, sizes, strict=True):
        more = size - int(x.shape[axis])
        # Half of the difference, rounded towards zero, at the front.
        before = more // 2 if more >= 0 else -(-more // 2)
        both[axis] = (before, more - before)
    if is_host(x):
        affordable([int(s) + sum(p) for s, p in zip(x.shape, both, strict=True)], "CenterCropPad")
    found: Value = compute(partial(padded, both=both, mode="constant", fill=0.0), x)
    return found


OPERATORS = {"Pad": _pad, "CenterCropPad": _center_crop_pad}
