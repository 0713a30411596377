"""Operators that move blocks of numbers between axes, repeat them, or turn their order."""

import math
from functools import partial

import numpy as np
import torch
from torch import Tensor

from pruning.errors import SecateurError
from pruning.formats.onnx.builder import Builder, Node
from pruning.formats.onnx.ops.dispatch import compute, priced
from pruning.formats.onnx.values import LARGEST, Value, affordable, ints, tensors


def _depth_to_space(node: Node, builder: Builder) -> None:
    size, mode = node.attributes.int("blocksize", 0), node.attributes.string("mode", "DCR")
    if size < 1 or mode not in ("DCR", "CRD"):
        raise node.invalid(f"blocksize={size}, mode={mode!r}")
    function = partial(compute, partial(depth_to_space, size=size, depth_last=mode == "CRD"))
    builder.call(node, function, [node.input(0)])


def depth_to_space(x: Tensor, size: int, depth_last: bool) -> Tensor:
    """Channels laid out as blocks of size x size; `depth_last` as torch's pixel shuffle."""
    samples, channels, height, width = x.shape
    depth = channels // (size * size)
    if depth_last:
        x = x.reshape(samples, depth, size, size, height, width).permute(0, 1, 4, 2, 5, 3)
    else:
        x = x.reshape(samples, size, size, depth, height, width).permute(0, 3, 4, 1, 5, 2)
    return x.reshape(samples, depth, height * size, width * size)


def _space_to_depth(node: Node, builder: Builder) -> None:
    size, mode = node.attributes.int("blocksize", 0), node.attributes.string("mode", "DCR")
    if size < 1 or mode not in ("DCR", "CRD"):
        raise node.invalid(f"blocksize={size}, mode={mode!r}")
    function = partial(compute, partial(space_to_depth, size=size, depth_last=mode == "CRD"))
    builder.call(node, function, [node.input(0)])


def space_to_depth(x: Tensor, size: int, depth_last: bool = False) -> Tensor:
    """Blocks of size x size as channels; the inverse of `depth_to_space`."""
    samples, channels, height, width = x.shape
    x = x.reshape(samples, channels, height // size, size, width // size, size)
    x = x.permute((0, 1, 3, 5, 2, 4) if depth_last else (0, 3, 5, 1, 2, 4))
    return x.reshape(samples, channels * size * size, height // size, width // size)


def _tile(node: Node, builder: Builder) -> None:
    builder.call(node, tile, [node.input(0), node.input(1)])


def tile(x: Value, repeats: Value) -> Value:
    """X repeated along its axes."""
    counts = ints(repeats, "Tile's repeats")
    if len(counts) != len(x.shape) or min(counts, default=0) < 0:
        raise SecateurError("model_invalid", f"Tile by {counts} of {len(x.shape)} axes.")
    shape = [int(s) * c for s, c in zip(x.shape, counts, strict=True)]
    if isinstance(x, Tensor):
        priced(x, shape, "Tile")
        return x.repeat(counts)
    affordable(shape, "Tile")
    return np.tile(x, counts)


def _reverse_sequence(node: Node, builder: Builder) -> None:
    time, batch = node.attributes.int("time_axis", 0), node.attributes.int("batch_axis", 1)
    if sorted((time, batch)) != [0, 1]:
        raise node.invalid(f"time_axis={time}, batch_axis={batch}")
    function = partial(compute, partial(reverse_sequence, time=time))
    builder.call(node, function, [node.input(0), node.input(1)])


def reverse_sequence(x: Tensor, lengths: Tensor, time: int) -> Tensor:
    """The first `lengths` steps of each sample in reverse order, the others as they are."""
    x = x if time == 0 else x.transpose(0, 1)
    steps = torch.arange(x.shape[0], device=x.device).unsqueeze(1)
    lengths = lengths.long().unsqueeze(0)
    places = torch.where(steps < lengths, lengths - 1 - steps, steps)
    places = places.reshape(*places.shape, *(1 for _ in x.shape[2:])).expand(x.shape)
    result = x.gather(0, places)
    return result if time == 0 else result.transpose(0, 1)


def _col2im(node: Node, builder: Builder) -> None:
    options = {name: node.attributes.ints(name) for name in ("dilations", "pads", "strides")}
    builder.call(node, partial(col2im, options=options), [node.input(i) for i in range(3)])


def col2im(x: Value, image: Value, block: Value, options: dict[str, list[int] | None]) -> Tensor:
    """Blocks [samples, channels * block, positions] added up at their places in an image."""
    (x,) = tensors(x)
    sizes, blocks = ints(image, "Col2Im's image"), ints(block, "Col2Im's block")
    rank = len(sizes)
    steps, gaps = options["strides"] or [1] * rank, options["dilations"] or [1] * rank
    pads = options["pads"] or [0] * 2 * rank
    if not len(blocks) == len(steps) == len(gaps) == rank == len(pads) // 2 or (
        min(*sizes, *blocks, *steps, *gaps) < 1 or min(pads) < 0
    ):
        raise SecateurError("model_invalid", "Col2Im: its sizes do not agree.")
    places: np.ndarray = np.zeros((1, 1), np.int64)
    whole = [size + pads[i] + pads[i + rank] for i, size in enumerate(sizes)]
    priced(x, (x.shape[0], x.shape[1] // math.prod(blocks), *whole), "Col2Im", LARGEST)
    for size, count, step, gap in zip(whole, blocks, steps, gaps, strict=True):
        positions = (size - gap * (count - 1) - 1) // step + 1
        if positions < 1 or places.size * count * positions > LARGEST:
            raise SecateurError("model_invalid", "Col2Im: its block does not fit its image.")
        along = np.arange(count)[:, None] * gap + np.arange(positions)[None] * step
        joined = places[:, None, :, None] * size + along[None, :, None, :]
        places = joined.reshape(places.shape[0] * count, places.shape[1] * positions)
    samples, channels = x.shape[0], x.shape[1] // math.prod(blocks)
    flat = x.reshape(samples, channels, places.size)
    image_sum = flat.new_zeros((samples, channels, math.prod(whole)))
    image_sum = image_sum.index_add(2, tensors(x, places.reshape(-1))[1], flat)
    result = image_sum.reshape(samples, channels, *whole)
    for i, size in enumerate(sizes):
        result = result.narrow(2 + i, pads[i], size)
    return result


OPERATORS = {
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    "Tile": _tile,
    "ReverseSequence": _reverse_sequence,
    "Col2Im": _col2im,
}
