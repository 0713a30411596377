"""Images sampled at a grid of points."""

from functools import partial

import torch.nn.functional as F
from torch import Tensor

from pruning.errors import SecateurError
from pruning.formats.onnx.builder import Builder, Node
from pruning.formats.onnx.ops.dispatch import priced
from pruning.formats.onnx.values import Value, ints, tensors

# Opset 20 renamed two modes so that they fit any number of axes.
_MODES = {
    "bilinear": "bilinear", "linear": "bilinear", "nearest": "nearest", "bicubic": "bicubic",
    "cubic": "bicubic",
}  # fmt: skip


def _grid_sample(node: Node, builder: Builder) -> None:
    mode = node.attributes.string("mode", "linear" if builder.opset >= 20 else "bilinear")
    padding = node.attributes.string("padding_mode", "zeros")
    align = bool(node.attributes.int("align_corners", 0))
    if mode not in _MODES or padding not in ("zeros", "border", "reflection"):
        raise node.invalid(f"mode={mode!r}, padding_mode={padding!r}")
    options = {"mode": _MODES[mode], "padding_mode": padding, "align_corners": align}
    builder.call(node, partial(grid_sample, options=options), [node.input(0), node.input(1)])


def grid_sample(x: Value, grid: Value, options: dict[str, str | bool]) -> Tensor:
    """X at the points of a grid whose coordinates run from -1 to 1 (Jaderberg et al. 2015)."""
    x, grid = tensors(x, grid)
    if x.dim() not in (4, 5) or (x.dim() == 5 and options["mode"] == "bicubic"):
        raise SecateurError(
            "operator_attribute_unsupported",
            f"GridSample with mode={options['mode']!r} of a value with {x.dim()} axes.",
        )
    return F.grid_sample(x, grid, **options)  # type: ignore[arg-type]


def _affine_grid(node: Node, builder: Builder) -> None:
    align = bool(node.attributes.int("align_corners", 0))
    builder.call(node, partial(affine_grid, align=align), [node.input(0), node.input(1)])


def affine_grid(theta: Value, size: Value, align: bool) -> Tensor:
    """The grid of points that an affine map sends an image of that size to."""
    (theta,) = tensors(theta)
    sizes = ints(size, "AffineGrid's size")
    if len(sizes) not in (4, 5) or min(sizes) < 1:
        raise SecateurError("model_invalid", f"AffineGrid for an image of shape {sizes[:16]}.")
    priced(theta, (sizes[0], *sizes[2:], len(sizes) - 2), "AffineGrid")
    return F.affine_grid(theta, sizes, align_corners=align)


OPERATORS = {"GridSample": _grid_sample, "AffineGrid": _affine_grid}
