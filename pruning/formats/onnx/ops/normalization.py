"""Batch and layer normalisation as torch's own layers."""

from math import prod

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pruning.formats.onnx.binding import Layout
from pruning.formats.onnx.builder import Builder, Node
from pruning.formats.onnx.graph import Constant
from pruning.formats.onnx.ops.layers import plain


class BatchNormAnyd(_BatchNorm):
    """Batch normalisation for a value whose number of axes is not known at import."""

    def _check_input_dim(self, input: Tensor) -> None:
        pass


_CLASSES: dict[int | None, type[_BatchNorm]] = {
    2: nn.BatchNorm1d,
    3: nn.BatchNorm1d,
    4: nn.BatchNorm2d,
    5: nn.BatchNorm3d,
}


def _batch_norm(node: Node, builder: Builder) -> None:
    epsilon = node.attributes.float("epsilon", 1e-5)
    momentum = node.attributes.float("momentum", 0.9)
    # In training mode the statistics of the batch count, and the running ones are further outputs.
    # What comes back is used for inference, so both modes are read as that of evaluation.
    node.attributes.int("training_mode", 0)
    if not node.attributes.int("spatial", 1):
        raise node.unsupported("spatial=0")
    names = ("weight", "bias", "running_mean", "running_var")
    found = [_required(node, builder, i + 1, name) for i, name in enumerate(names)]
    channels = prod(found[0].shape)
    if any(constant.shape != (channels,) for constant in found):
        raise node.invalid("scale, bias, mean and variance differ in length")
    kind = _CLASSES.get(builder.rank(node.inputs[0] or ""), BatchNormAnyd)
    layer = plain(kind, channels, epsilon, min(max(1.0 - momentum, 0.0), 1.0))
    layer.num_batches_tracked = torch.zeros((), dtype=torch.long)
    first, second = node.inputs[1] or "", node.inputs[2] or ""
    path = builder.place(layer, (first, second, node), "batch_norm")
    for name, constant in zip(names, found, strict=True):
        layout = Layout(constant.permutation, (channels,))
        builder.bind(node, f"{path}.{name}", constant, layout)
    builder.layer(node, path, node.inputs[0] or "", node.one_output())


def _layer_norm(node: Node, builder: Builder) -> None:
    axis = node.attributes.int("axis", -1)
    epsilon = node.attributes.float("epsilon", 1e-5)
    if node.attributes.int("stash_type", 1) != 1:
        raise node.unsupported("stash_type other than float32")
    weight = _required(node, builder, 1, "weight")
    bias = _required(node, builder, 2, "bias") if node.input(2) else None
    rank = builder.rank(node.inputs[0] or "")
    axes = -axis if axis < 0 else None if rank is None else rank - axis
    if axes is None or len(weight.shape) != axes or (
        bias is not None and bias.shape != weight.shape
    ):  # fmt: skip
        raise node.unsupported("a scale or bias whose shape is not that of the normalised axes")
    shape = weight.shape
    layer = plain(nn.LayerNorm, list(shape), epsilon, bias=bias is not None)
    names = (node.inputs[1] or "", node.input(2), node)
    path = builder.place(layer, names, "layer_norm")
    builder.bind(node, f"{path}.weight", weight, Layout(weight.permutation, shape))
    if bias is not None:
        builder.bind(node, f"{path}.bias", bias, Layout(bias.permutation, shape))
    builder.layer(node, path, node.inputs[0] or "", node.one_output())


def _required(node: Node, builder: Builder, index: int, what: str) -> Constant:
    constant = builder.constant(node.input(index))
    if constant is None:
        raise node.unsupported(f"a {what} that is not a constant")
    return constant


OPERATORS = {"BatchNormalization": _batch_norm, "LayerNormalization": _layer_norm}
