"""Shapes of results where ONNX's inference does not follow the arithmetic on sizes.

Each rule takes the shapes of an operator's inputs, and the numbers of those that are known, to the
shape of its result; it makes nothing of that size.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
from torch import nn

from pruning.layers import MatMul

Shape = tuple[int, ...]
Rule = Callable[[Sequence[Any], dict[str, Any]], Shape]

_SAME = ("Softmax", "LogSoftmax", "Hardmax", "InstanceNormalization", "LRN", "LpNormalization")


def outline(
    kind: str,
    given: Sequence[Any],
    attributes: dict[str, Any],
    layer: nn.Module | None,
    place: int = 0,
) -> Shape:
    """The shape of an operator's result.

    Args:
        kind: The operator.
        given: Its inputs: host arrays, and for tensors arrays of their shape without memory.
        attributes: Its integers and lists of them.
        layer: The layer that computes it, where one does.
        place: Which result; the first but for Split.

    Raises:
        LookupError: An operator without a rule.
        ValueError: Inputs that do not fit.
    """
    if layer is not None:
        return _of_layer(layer, np.shape(given[0]))
    if kind in _SAME:
        return np.shape(given[0])
    if kind.startswith("Reduce"):
        return _reduced(given, attributes)
    if kind == "Split":
        return _split(given, attributes, place)
    rule = _RULES.get(kind)
    return rule(given, attributes) if rule else _broadcast(kind, given)


def spread_shape(*shapes: Shape) -> Shape:
    """The shape to which these are broadcast.

    Raises:
        ValueError: Shapes that do not fit.
    """
    rank = max(map(len, shapes), default=0)
    found = [1] * rank
    for shape in shapes:
        for axis, size in enumerate(shape, rank - len(shape)):
            if size == 1 or size == found[axis]:
                continue
            if found[axis] != 1:
                raise ValueError(f"{shapes} do not fit")
            found[axis] = size
    return tuple(found)


def dummy(shape: Shape) -> np.ndarray:
    """An array of that shape that takes no memory."""
    return np.broadcast_to(np.float32(0), shape)


ELEMENTWISE = frozenset((
    "Abs", "Add", "And", "Cast", "Ceil", "Celu", "Clip", "Cos", "Div", "Dropout", "Elu", "Equal",
    "Erf", "Exp", "Floor", "Gelu", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish",
    "Identity", "IsInf", "IsNaN", "LeakyRelu", "Less", "LessOrEqual", "Log", "Max", "Mean", "Min",
    "Mish", "Mod", "Mul", "Neg", "Not", "Or", "PRelu", "Pow", "Reciprocal", "Relu", "Round", "Selu",
    "Shrink", "Sigmoid", "Sign", "Sin", "Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Swish",
    "Tan", "Tanh", "ThresholdedRelu", "Where", "Xor",
))  # fmt: skip
"""Operators that work number by number, on inputs that are broadcast."""


def _broadcast(kind: str, given: Sequence[Any]) -> Shape:
    if kind not in ELEMENTWISE:
        raise LookupError(kind)
    return spread_shape(*(np.shape(x) for x in given if x is not None))


def _of_layer(layer: nn.Module, shape: Shape) -> Shape:
    if isinstance(layer, nn.Linear):
        return (*shape[:-1], layer.out_features)
    if isinstance(layer, MatMul):
        held = np.broadcast_to(np.float32(0), tuple(layer.weight.shape))
        other = np.broadcast_to(np.float32(0), shape)
        return _product([held, other] if layer.left else [other, held], {})
    if isinstance(layer, nn.Embedding):
        return (*shape, layer.embedding_dim)
    if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        pads = layer.padding if isinstance(layer.padding, tuple) else (0,) * len(layer.stride)
        sizes = [
            (size + 2 * int(pad) - step * (width - 1) - 1) // stride + 1
            for size, pad, step, width, stride in zip(
                shape[2:], pads, layer.dilation, layer.kernel_size, layer.stride, strict=True
            )
        ]
        return (shape[0], layer.out_channels, *sizes)
    if isinstance(layer, nn.LayerNorm | nn.Dropout | nn.modules.batchnorm._BatchNorm):
        return shape
    raise LookupError(type(layer).__name__)


def _numbers(value: Any) -> list[int]:
    return [int(v) for v in np.asarray(value).reshape(-1)]


def _second(given: Sequence[Any], attributes: dict[str, Any], name: str) -> list[int] | None:
    if len(given) > 1 and given[1] is not None:
        return _numbers(given[1])
    return attributes.get(name)


def _reduced(given: Sequence[Any], attributes: dict[str, Any]) -> Shape:
    shape = np.shape(given[0])
    axes = _second(given, attributes, "axes")
    gone = {axis % len(shape) for axis in axes} if axes else set(range(len(shape)))
    if attributes.get("keepdims", 1):
        return tuple(1 if i in gone else size for i, size in enumerate(shape))
    return tuple(size for i, size in enumerate(shape) if i not in gone)


def _product(given: Sequence[Any], attributes: dict[str, Any]) -> Shape:
    a, b = (np.shape(x) for x in given)
    if min(len(a), len(b)) < 2 or a[-1] != b[-2]:
        raise ValueError("a product")
    return (*spread_shape(a[:-2], b[:-2]), a[-2], b[-1])


def _reshaped(given: Sequence[Any], attributes: dict[str, Any]) -> Shape:
    shape, sizes = np.shape(given[0]), _numbers(given[1])
    if not attributes.get("allowzero"):
        sizes = [shape[i] if size == 0 else size for i, size in enumerate(sizes)]
    rest = prod(size for size in sizes if size != -1)
    found = tuple(prod(shape) // rest if size == -1 else size for size in sizes)
    if prod(found) != prod(shape):
        raise ValueError("a reshape")
    return found


def _flat(given: Sequence[Any], attributes: dict[str, Any]) -> Shape:
    shape = np.shape(given[0])
    axis = attributes.get("axis", 1) % len(shape)
    return (prod(shape[:axis]), prod(shape[axis:]))


def _turned(given: Sequence[Any], attributes: dict[str, Any]) -> Shape:
    order: list[int] | None = attributes.get("perm")
    found: Shape = np.transpose(given[0], order).shape
    return found


def _squeezed(given: Sequence[Any], attributes: dict[str, Any]) -> Shape:
    axes = _second(given, attributes, "axes")
    return np.squeeze(given[0], None if axes is None else tuple(axes)).shape


def _unsqueezed(given: Sequence[Any], attributes: dict[str, Any]) -> Shape:
    return np.expand_dims(given[0], tuple(_second(given, attributes, "axes") or ())).shape


def _expanded(given: Sequence[Any], attributes: dict[str, Any]) -> Shape:
    return spread_shape(np.shape(given[0]), tuple(_numbers(given[1])))


def _sliced(given: Sequence[Any], attributes: dict[str, Any]) -> Shape:
    shape = list(np.shape(given[0]))
    full = [*given, None, None, None, None][1:5]
    names = ("starts", "ends", "axes", "steps")
    listed = [
        attributes.get(name) if value is None else _numbers(value)
        for name, value in zip(names, full, strict=True)
    ]
    starts, ends = listed[0] or [], listed[1] or []
    axes = listed[2] if listed[2] is not None else list(range(len(starts)))
    steps = listed[3] if listed[3] is not None else [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        shape[axis] = len(range(*slice(start, end, step).indices(shape[axis])))
    return tuple(shape)


def _joined(given: Sequence[Any], attributes: dict[str, Any]) -> Shape:
    axis = attributes["axis"]
    shape = list(np.shape(given[0]))
    shape[axis] = sum(np.shape(x)[axis] for x in given)
    return tuple(shape)


def _picked(given: Sequence[Any], attributes: dict[str, Any]) -> Shape:
    shape = np.shape(given[0])
    axis = attributes.get("axis", 0) % len(shape)
    return (*shape[:axis], *np.shape(given[1]), *shape[axis + 1 :])


def _averaged(given: Sequence[Any], attributes: dict[str, Any]) -> Shape:
    shape = np.shape(given[0])
    return (*shape[:2], *(1,) * (len(shape) - 2))


def _split(given: Sequence[Any], attributes: dict[str, Any], place: int) -> Shape:
    shape = list(np.shape(given[0]))
    sizes = _second(given, attributes, "split")
    if sizes is None:
        raise LookupError("equal parts")
    shape[attributes.get("axis", 0)] = sizes[place]
    return tuple(shape)


def _pooled(given: Sequence[Any], attributes: dict[str, Any]) -> Shape:
    shape, kernel = np.shape(given[0]), attributes["kernel_shape"]
    if attributes.get("auto_pad", b"NOTSET") != b"NOTSET" or attributes.get("ceil_mode"):
        raise LookupError("auto_pad")
    ones = [1] * len(kernel)
    strides, steps = attributes.get("strides", ones), attributes.get("dilations", ones)
    pads = attributes.get("pads", [0] * 2 * len(kernel))
    sizes = [
        (size + before + after - step * (width - 1) - 1) // stride + 1
        for size, before, after, step, width, stride in zip(
            shape[2:], pads, pads[len(kernel) :], steps, kernel, strides, strict=False
        )
    ]
    return (*shape[:2], *sizes)


def _padded(given: Sequence[Any], attributes: dict[str, Any]) -> Shape:
    shape = np.shape(given[0])
    pads = _second(given, attributes, "pads") or []
    if len(given) > 3 and given[3] is not None:
        raise LookupError("axes")
    return tuple(
        size + a + b
        for size, a, b in zip(shape, pads[: len(shape)], pads[len(shape) :], strict=True)
    )


_RULES: dict[str, Rule] = {
    "MatMul": _product, "Reshape": _reshaped, "Flatten": _flat, "Transpose": _turned,
    "Squeeze": _squeezed, "Unsqueeze": _unsqueezed, "Expand": _expanded, "Slice": _sliced,
    "Concat": _joined, "Gather": _picked, "GlobalAveragePool": _averaged,
    "GlobalMaxPool": _averaged, "Pad": _padded, "MaxPool": _pooled, "AveragePool": _pooled,
}  # fmt: skip
