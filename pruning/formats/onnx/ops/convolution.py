"""Convolutions of one to three spatial axes as nn.Conv1d, nn.Conv2d and nn.Conv3d."""

from functools import partial

from torch import Tensor, nn

from pruning.formats.onnx.binding import Layout
from pruning.formats.onnx.builder import Builder, Node
from pruning.formats.onnx.ops.layers import plain
from pruning.formats.onnx.ops.spatial import Window, pad
from pruning.formats.onnx.values import Value, tensors

_CLASSES: dict[int, type[nn.Conv1d] | type[nn.Conv2d] | type[nn.Conv3d]] = {
    1: nn.Conv1d,
    2: nn.Conv2d,
    3: nn.Conv3d,
}


def _conv(node: Node, builder: Builder) -> None:
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
    if bias is not None and bias.shape != (shape[0],):
        raise node.invalid(f"a bias of shape {list(bias.shape)} for {shape[0]} channels")
    window = Window(node, kernel)
    layer = plain(
        _CLASSES[len(kernel)],
        shape[1] * groups,
        shape[0],
        kernel,
        stride=window.strides,
        padding=tuple(b for b, _ in window.pads) if window.symmetric else 0,
        dilation=window.dilations,
        groups=groups,
        bias=bias is not None,
    )
    name = node.inputs[1] or ""
    shown = name if name.endswith(".weight") else weight.source
    fallback = f"conv{len(kernel)}d"
    path = builder.place(layer, (shown, bias.source if bias else None, node), fallback)
    layout = Layout(weight.permutation, shape)
    builder.bind(node, f"{path}.weight", weight, layout, prunable=True)
    if bias is not None:
        builder.bind(node, f"{path}.bias", bias, Layout(bias.permutation, (shape[0],)))
    source = node.inputs[0] or ""
    if not window.symmetric:
        padded = f"{node.outputs[0]}/padded"
        builder.call(node, partial(pad_for, window=window), [source], [padded])
        source = padded
    builder.layer(node, path, source, node.one_output())


def pad_for(x: Value, window: Window) -> Tensor:
    """X with the zeros around it that the window asks for."""
    (x,) = tensors(x)
    return pad(x, window.padding(x.shape[2:]))


OPERATORS = {"Conv": _conv}
