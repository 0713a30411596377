"""What convolution and pooling share: padding of spatial axes as ONNX describes it."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from pruning.formats.onnx.builder import Node
from pruning.formats.onnx.ops.dispatch import priced

_PADDED = 1 << 22
"""Numbers that a padded value may have where that is over 16 times those of the value itself."""

# (before, after) for each spatial axis
Pads = tuple[tuple[int, int], ...]


class Window:
    """kernel_shape, strides, dilations, pads and auto_pad of a node."""

    def __init__(self, node: Node, kernel: Sequence[int]) -> None:
        dims = len(kernel)
        attributes = node.attributes
        self.kernel = tuple(kernel)
        self.strides = tuple(attributes.ints("strides", [1] * dims))
        self.dilations = tuple(attributes.ints("dilations", [1] * dims))
        pads = attributes.ints("pads", [0] * 2 * dims)
        self.auto_pad = attributes.string("auto_pad", "NOTSET")
        if not 1 <= dims <= 3:
            raise node.unsupported(f"{dims} spatial axes")
        sizes = (*self.kernel, *self.strides, *self.dilations)
        if len(sizes) != 3 * dims or len(pads) != 2 * dims or min(sizes) < 1:
            raise node.invalid("its attributes do not agree in length or are not positive")
        if min(pads) < 0:
            raise node.unsupported("negative pads")
        if self.auto_pad not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
            raise node.invalid(f"auto_pad={self.auto_pad}")
        given = tuple(zip(pads[:dims], pads[dims:], strict=True))
        self.pads: Pads = given if self.auto_pad == "NOTSET" else ((0, 0),) * dims

    @property
    def same(self) -> bool:
        """Whether the padding follows from the input's size."""
        return self.auto_pad.startswith("SAME")

    @property
    def symmetric(self) -> bool:
        """Whether both ends of every axis get the same, known padding."""
        return not self.same and all(before == after for before, after in self.pads)

    def padding(self, sizes: Sequence[int]) -> Pads:
        """The padding for spatial sizes; SAME gives ceil(size / stride) positions."""
        if not self.same:
            return self.pads
        result = []
        for size, kernel, stride, dilation in zip(
            sizes, self.kernel, self.strides, self.dilations, strict=True
        ):
            span = (-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1
            total = max(0, span - size)
            less, more = total // 2, total - total // 2
            result.append((less, more) if self.auto_pad == "SAME_UPPER" else (more, less))
        return tuple(result)


def pad(x: Tensor, pads: Pads, value: float = 0.0) -> Tensor:
    """X with its last axes padded by a constant.

    Raises:
        SecateurError: `model_too_large` for padding out of all proportion, which a large stride
            would hide: the result is small then.
    """
    flat = [size for axis in reversed(pads) for size in axis]
    if not any(flat):
        return x
    lead = x.dim() - len(pads)
    more = [0] * lead + [before + after for before, after in pads]
    priced(x, [a + b for a, b in zip(x.shape, more, strict=True)], "Padding", _PADDED)
    return F.pad(x, flat, value=value)
