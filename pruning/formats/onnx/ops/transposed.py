"""Transposed convolutions of one to three spatial axes as nn.ConvTranspose1d to 3d."""

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from pruning.errors import SecateurError
from pruning.formats.onnx.binding import Layout
from pruning.formats.onnx.builder import Builder, Node
from pruning.formats.onnx.ops.dispatch import priced
from pruning.formats.onnx.ops.layers import plain
from pruning.formats.onnx.ops.spatial import Pads, Window
from pruning.formats.onnx.values import Value, tensors

_CLASSES: dict[int, type[nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d]] = {
    1: nn.ConvTranspose1d,
    2: nn.ConvTranspose2d,
    3: nn.ConvTranspose3d,
}


def _conv_transpose(node: Node, builder: Builder) -> None:
    """The layer gives the uncropped result, unless its padding is that of torch's own layer."""
    weight, bias = builder.constant(node.input(1)), builder.constant(node.input(2))
    builder.refuse_computed(node, node.input(1), "weight")
    for index, constant, what in ((1, weight, "weight"), (2, bias, "bias")):
        if node.input(index) and constant is None:
            raise node.unsupported(f"a {what} that is not a constant")
    if weight is None or len(weight.shape) < 3:
        raise node.invalid("the weight has no spatial axis")
    shape = weight.shape
    groups = node.attributes.int("group", 1)
    kernel = tuple(node.attributes.ints("kernel_shape", list(shape[2:])))
    if kernel != shape[2:]:
        raise node.invalid(f"kernel_shape {list(kernel)} for a weight of shape {list(shape)}")
    if min(shape) < 1 or groups < 1 or shape[0] % groups:
        raise node.invalid(f"group={groups} for a weight of shape {list(shape)}")
    units = shape[1] * groups
    if bias is not None and bias.shape != (units,):
        raise node.invalid(f"a bias of shape {list(bias.shape)} for {units} channels")
    crop = _Crop(node, Window(node, kernel), units)
    layer = plain(
        _CLASSES[len(kernel)],
        shape[0],
        units,
        kernel,
        stride=crop.strides,
        padding=crop.padding,
        output_padding=crop.more,
        dilation=crop.dilations,
        groups=groups,
        bias=bias is not None,
    )
    name = node.inputs[1] or ""
    shown = name if name.endswith(".weight") else weight.source
    fallback = f"conv_transpose{len(kernel)}d"
    path = builder.place(layer, (shown, bias.source if bias else None, node), fallback)
    builder.bind(node, f"{path}.weight", weight, Layout(weight.permutation, shape), prunable=True)
    if bias is not None:
        builder.bind(node, f"{path}.bias", bias, Layout(bias.permutation, (units,)))
    output = node.one_output()
    if not crop.needed:
        builder.layer(node, path, node.inputs[0] or "", output)
        return
    whole = f"{output}/whole"
    checked = f"{output}/checked"
    builder.call(node, partial(affordable_for, crop=crop), [node.inputs[0]], [checked])
    builder.layer(node, path, checked, whole)
    builder.call(node, partial(cropped, crop=crop), [whole], [output])


class _Crop:
    """What of the full result, (size - 1) stride + (kernel - 1) dilation + 1, is kept.

    `padding` and `more` are torch's padding and output_padding.
    """

    def __init__(self, node: Node, window: Window, channels: int) -> None:
        attributes, dims = node.attributes, len(window.kernel)
        self.strides, self.dilations = window.strides, window.dilations
        self.channels = channels
        more = tuple(attributes.ints("output_padding", [0] * dims))
        self.sizes = attributes.ints("output_shape")
        if self.sizes is not None:
            self.sizes = self.sizes[-dims:]
        if len(more) != dims or min(more) < 0 or (self.sizes and len(self.sizes) != dims):
            raise node.invalid("output_padding or output_shape do not fit the kernel")
        self.spans = spans = [
            (k - 1) * d + 1 for k, d in zip(window.kernel, window.dilations, strict=True)
        ]
        self.upper = window.auto_pad == "SAME_UPPER"
        self.same = window.same
        self.pads: Pads = window.pads
        self.padding: tuple[int, ...] = (0,) * dims
        if window.same and self.sizes is None:
            # The full size less size * stride; onnxruntime goes its own way where that is negative.
            totals = [s + m - t for s, m, t in zip(spans, more, self.strides, strict=True)]
            if min(totals) < 0:
                raise node.unsupported(f"auto_pad={window.auto_pad} with strides over the kernel")
            self.pads = tuple(self._halves(total) for total in totals)
        self.needed = self.sizes is not None or any(b != a for b, a in self.pads)
        if not self.needed:
            self.padding = tuple(before for before, _ in self.pads)
        limits = tuple(map(max, self.strides, self.dilations))
        if any(m >= limit for m, limit in zip(more, limits, strict=True)):
            raise node.unsupported(f"output_padding {list(more)} as large as its strides")
        # A given shape may go beyond the full size: the layer then pads as much as torch allows.
        self.more = more if self.sizes is None else tuple(limit - 1 for limit in limits)
        self.surplus = [a - b for a, b in zip(self.more, more, strict=True)]

    def kept(self, whole: list[int]) -> Pads:
        """The negative padding before and after each spatial axis."""
        if self.sizes is None:
            return tuple((-before, -after) for before, after in self.pads)
        kept = []
        for full, size, surplus in zip(whole, self.sizes, self.surplus, strict=True):
            before, _ = self._halves(max(0, full - surplus - size))
            kept.append((-before, before + size - full))
        if any(after > 0 for _, after in kept):
            raise SecateurError(
                "operator_attribute_unsupported",
                f"ConvTranspose with output_shape {self.sizes} of a result of shape {whole}.",
                hint="Export with pads and output_padding instead of output_shape.",
            )
        return tuple(kept)

    def _halves(self, total: int) -> tuple[int, int]:
        less, more = total // 2, total - total // 2
        return (less, more) if self.upper else (more, less)


def affordable_for(x: Value, crop: _Crop) -> Tensor:
    """X itself, where the full result, of which a small part may be kept, can be held."""
    (x,) = tensors(x)
    parts = zip(x.shape[2:], crop.strides, crop.spans, crop.more, strict=True)
    whole = [(size - 1) * step + span + more for size, step, span, more in parts]
    shape = (x.shape[0], crop.channels, *whole)
    priced(x, shape, "The full result of a transposed convolution", 1 << 26)
    return x


def cropped(x: Value, crop: _Crop) -> Tensor:
    """The part of the full result that is kept."""
    (x,) = tensors(x)
    kept = crop.kept(list(x.shape[2:]))
    return F.pad(x, [size for axis in reversed(kept) for size in axis])


OPERATORS = {"ConvTranspose": _conv_transpose}
