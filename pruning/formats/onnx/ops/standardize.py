"""Normalisations besides those over a batch or the last axes."""

import math
from functools import partial

import torch
import torch.nn.functional as F
from onnx import TensorProto
from torch import Tensor, nn

from pruning.errors import SecateurError
from pruning.formats.onnx.binding import Layout
from pruning.formats.onnx.builder import Builder, Node
from pruning.formats.onnx.graph import Constant
from pruning.formats.onnx.ops.dispatch import compute
from pruning.formats.onnx.ops.layers import plain
from pruning.formats.onnx.values import Value, axis_of, tensors


class InstanceNorm(nn.Module):
    """Each channel of each sample to mean 0 and variance 1, then scaled and moved."""

    def __init__(self, channels: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, device="meta"))
        self.bias = nn.Parameter(torch.empty(channels, device="meta"))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        """X [samples, channels, ...] normalised."""
        return instance_norm(x, self.weight, self.bias, self.epsilon)


class RMSNorm(nn.Module):
    """The last axes divided by their root mean square, then scaled (Zhang and Sennrich 2019)."""

    def __init__(self, shape: tuple[int, ...], epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(shape, device="meta"))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        """X normalised over as many last axes as the weight has."""
        return rms_norm(x, self.weight, -self.weight.dim(), self.epsilon)


def _vectors(node: Node, builder: Builder, *indices: int) -> list[Constant] | None:
    """The inputs as constants that a layer can hold, or None where one of them is computed."""
    found = [builder.constant(node.input(i)) for i in indices]
    constants = [c for c in found if c is not None and c.is_real]
    return constants if len(constants) == len(found) else None


def _hold(
    node: Node, builder: Builder, layer: nn.Module, found: list[Constant], fallback: str
) -> None:
    """Places a layer with its weight and bias and adds the step that calls it."""
    names = (node.inputs[1] or "", node.input(2), node)
    path = builder.place(layer, names, fallback)
    for name, constant in zip(("weight", "bias"), found, strict=False):
        layout = Layout(constant.permutation, constant.shape)
        builder.bind(node, f"{path}.{name}", constant, layout)
    builder.layer(node, path, node.inputs[0] or "", node.one_output())


def _instance(node: Node, builder: Builder) -> None:
    epsilon = node.attributes.float("epsilon", 1e-5)
    found = _vectors(node, builder, 1, 2)
    if found is None:
        function = partial(compute, partial(instance_norm, epsilon=epsilon))
        builder.call(node, function, [node.input(i) for i in range(3)])
        return
    channels = math.prod(found[0].shape)
    if any(c.shape != (channels,) for c in found):
        raise node.invalid("scale and bias differ in length")
    _hold(node, builder, InstanceNorm(channels, epsilon), found, "instance_norm")


def instance_norm(x: Tensor, scale: Tensor, bias: Tensor, epsilon: float) -> Tensor:
    """Each channel of each sample to mean 0 and variance 1, then scaled and moved."""
    dims = tuple(range(2, x.dim()))
    if not dims:
        raise SecateurError("model_invalid", "InstanceNormalization without a spatial axis.")
    shape = (1, -1, *(1 for _ in dims))
    variance, mean = torch.var_mean(x, dims, correction=0, keepdim=True)
    return (x - mean) * (variance + epsilon).rsqrt() * scale.reshape(shape) + bias.reshape(shape)


def _group(node: Node, builder: Builder) -> None:
    """Opset 18 has a scale a group, opset 21 one a channel."""
    epsilon, groups = node.attributes.float("epsilon", 1e-5), node.attributes.int("num_groups")
    if node.attributes.int("stash_type", 1) != 1:
        raise node.unsupported("stash_type other than float32")
    if groups is None or groups < 1:
        raise node.invalid(f"num_groups={groups}")
    found = _vectors(node, builder, 1, 2)
    if found is None or builder.opset < 21:
        function = partial(compute, partial(group_norm, groups=groups, epsilon=epsilon))
        builder.call(node, function, [node.input(i) for i in range(3)])
        return
    channels = math.prod(found[0].shape)
    if any(c.shape != (channels,) for c in found) or channels % groups:
        raise node.invalid(f"scale and bias do not fit {groups} groups")
    layer = plain(nn.GroupNorm, groups, channels, epsilon)
    _hold(node, builder, layer, found, "group_norm")


def group_norm(x: Tensor, scale: Tensor, bias: Tensor, groups: int, epsilon: float) -> Tensor:
    """Each group of channels to mean 0 and variance 1, then scaled and moved."""
    repeats = x.shape[1] // max(1, scale.numel())
    if repeats * scale.numel() != x.shape[1] or scale.numel() not in (groups, x.shape[1]):
        raise SecateurError(
            "model_invalid",
            f"GroupNormalization of {x.shape[1]} channels with {scale.numel()} scales.",
        )
    if repeats > 1:
        scale, bias = scale.repeat_interleave(repeats), bias.repeat_interleave(repeats)
    return F.group_norm(x, groups, scale, bias, epsilon)


def _rms(node: Node, builder: Builder) -> None:
    axis = node.attributes.int("axis", -1)
    epsilon = node.attributes.float("epsilon", 1e-5)
    if node.attributes.int("stash_type", TensorProto.FLOAT) != TensorProto.FLOAT:
        raise node.unsupported("stash_type other than float32")
    found = _vectors(node, builder, 1)
    rank = builder.rank(node.inputs[0] or "")
    axes = -axis if axis < 0 else None if rank is None else rank - axis
    if found is None or len(found[0].shape) != axes:
        function = partial(compute, partial(rms_norm, axis=axis, epsilon=epsilon))
        builder.call(node, function, [node.input(0), node.input(1)])
        return
    _hold(node, builder, RMSNorm(found[0].shape, epsilon), found, "rms_norm")


def rms_norm(x: Tensor, scale: Tensor, axis: int, epsilon: float) -> Tensor:
    """X over the root mean square of the axes from `axis` on, times the scale."""
    dims = tuple(range(axis_of(axis, x.dim(), "RMSNormalization"), x.dim()))
    return x * (x.square().mean(dims, keepdim=True) + epsilon).rsqrt() * scale


def _mean_variance(node: Node, builder: Builder) -> None:
    axes = node.attributes.ints("axes", [0, 2, 3])
    builder.call(node, partial(compute, partial(mean_variance, axes=axes)), [node.input(0)])


def mean_variance(x: Tensor, axes: list[int]) -> Tensor:
    """X less its mean, over its standard deviation, over the axes."""
    dims = tuple(axis_of(a, x.dim(), "MeanVarianceNormalization") for a in axes)
    variance, mean = torch.var_mean(x, dims, correction=0, keepdim=True)
    return (x - mean) / (variance.sqrt() + 1e-9)


def _lp(node: Node, builder: Builder) -> None:
    axis, p = node.attributes.int("axis", -1), node.attributes.int("p", 2)
    if p not in (1, 2):
        raise node.invalid(f"p={p}")
    builder.call(node, partial(compute, partial(lp_norm, axis=axis, p=p)), [node.input(0)])


def lp_norm(x: Tensor, axis: int, p: int) -> Tensor:
    """X over its norm along an axis, 0 where that is 0."""
    axis = axis_of(axis, x.dim(), "LpNormalization")
    norm = torch.linalg.vector_norm(x, p, dim=axis, keepdim=True)
    return x / torch.where(norm == 0, torch.ones_like(norm), norm)


def _lrn(node: Node, builder: Builder) -> None:
    options = {
        "alpha": node.attributes.float("alpha", 1e-4),
        "beta": node.attributes.float("beta", 0.75),
        "bias": node.attributes.float("bias", 1.0),
        "size": node.attributes.int("size"),
    }
    if not options["size"] or options["size"] < 1:
        raise node.invalid(f"size={options['size']}")
    builder.call(node, partial(local_response, **options), [node.input(0)])


def local_response(x: Value, alpha: float, beta: float, bias: float, size: int) -> Tensor:
    """X over a power of the squares in neighbouring channels (Krizhevsky et al. 2012, 3.3)."""
    (x,) = tensors(x)
    channels = x.shape[1]
    before, after = min((size - 1) // 2, channels), min(size // 2, channels)
    squares = F.pad(x.square().reshape(x.shape[0], 1, channels, -1), (0, 0, before, after))
    width = before + after + 1
    sums = F.avg_pool2d(squares, (width, 1), (1, 1)) * width
    return x / (bias + alpha / size * sums.reshape(x.shape)) ** beta


OPERATORS = {
    "InstanceNormalization": _instance,
    "GroupNormalization": _group,
    "RMSNormalization": _rms,
    "MeanVarianceNormalization": _mean_variance,
    "LpNormalization": _lp,
    "LRN": _lrn,
}
