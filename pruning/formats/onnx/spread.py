"""Whether every sample of a batch goes through a graph on its own, told from shapes alone.

Shapes at batch sizes of 2 and 3 show along which axis the samples of each value lie; a rule for
each family of operators says whether it keeps them apart. What no rule covers is not proven, and
has to be found out by running.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from onnx import NodeProto
from torch import Tensor, nn

from pruning.errors import SecateurError
from pruning.formats.onnx.graph import Graph, Shapes, first_output
from pruning.formats.onnx.module import FAILURES, OnnxModule, Step

SMALL, LARGE = 2, 3

_ELEMENTWISE = frozenset(
    ["Abs", "Add", "And", "Cast", "Ceil", "Celu", "Clip", "Cos", "Div", "Dropout", "Elu", "Equal", "Erf", "Exp", "Floor", "Gelu", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "Identity", "IsInf", "IsNaN", "LeakyRelu", "Less", "LessOrEqual", "Log", "Max", "Mean", "Min", "Mish", "Mod", "Mul", "Neg", "Not", "Or", "PRelu", "Pow", "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Swish", "Tan", "Tanh", "ThresholdedRelu", "Where", "Xor"]
)
_SPATIAL = frozenset(
    ["AveragePool", "BatchNormalization", "Conv", "ConvTranspose", "GlobalAveragePool", "GlobalMaxPool", "InstanceNormalization", "LRN", "MaxPool", "DepthToSpace", "SpaceToDepth"]
)
_FIRST = frozenset(("Pad", "Resize", "Tile", "Upsample"))


@dataclass(frozen=True)
class _Ghost:
    """A tensor of which only the shapes at both batch sizes and the samples' axis are known."""

    small: tuple[int, ...]
    large: tuple[int, ...]
    axis: int


class _Unproven(Exception):  # noqa: N818 - no error: the graph is run instead
    """No rule says that samples stay apart."""


Value = tuple[np.ndarray, np.ndarray] | _Ghost


def keeps_samples_apart(graph: Graph, module: OnnxModule, small: Shapes, large: Shapes) -> bool:
    """Whether that is certain; False where it is not known.

    Args:
        graph: The graph.
        module: Its steps.
        small: Shapes of all values at a batch size of `SMALL`.
        large: The same at `LARGE`.
    """
    try:
        return _Spread(graph, module, small, large).outputs_first()
    except (_Unproven, SecateurError, *FAILURES):
        return False


class _Spread:
    def __init__(self, graph: Graph, module: OnnxModule, small: Shapes, large: Shapes) -> None:
        self.module, self.shapes = module, (small, large)
        self.nodes = {first_output(node): node for node in graph.nodes}
        self.values: dict[str, Value] = {
            name: (value, value) for name, value in module.host_constants.items()
        }
        for name, path in module.constant_buffers.items():
            value = module.get_buffer(path).numpy()
            self.values[name] = (value, value)
        for name, reference in module.references.items():
            held = np.broadcast_to(np.float32(0), reference.route.shapes[-1])
            self.values[name] = (held, held)
        for name in module.input_names:
            self.values[name] = self._ghost(name)
        for step in module.steps:
            self._take(step)

    def outputs_first(self) -> bool:
        found = [self.values[name] for name in self.module.output_names]
        return all(isinstance(value, _Ghost) and value.axis == 0 for value in found)

    def _ghost(self, name: str) -> _Ghost:
        first, second = (shapes[name][0] for shapes in self.shapes)
        if None in first or None in second or len(first) != len(second):
            raise _Unproven
        axes = [i for i, (a, b) in enumerate(zip(first, second, strict=True)) if a != b]
        _need(len(axes) == 1 and first[axes[0]] * LARGE == second[axes[0]] * SMALL)  # type: ignore[operator]
        return _Ghost(first, second, axes[0])  # type: ignore[arg-type]

    def _take(self, step: Step) -> None:
        given = [self.values[name] if name else None for name in step.inputs]
        ghosts = [value for value in given if isinstance(value, _Ghost)]
        if not ghosts or step.operator in ("Shape", "Size"):
            self._compute(step, given)
            return
        if step.outputs[0].endswith("/padded"):
            padded = ghosts[0]
            _need(padded.axis == 0)
            self.values[step.outputs[0]] = padded
            return
        node = self.nodes.get(step.outputs[0], NodeProto())
        attributes = {a.name: list(a.ints) if a.type == 7 else a.i for a in node.attribute}
        for output in step.outputs:
            known = output in self.shapes[0]
            if not known and output is not step.outputs[0]:
                continue  # optional, read by nothing
            ghost = self._ghost(output)
            axis = self._axis(step, given, attributes, ghost)
            _need(axis == ghost.axis)
            self.values[output] = ghost

    def _compute(self, step: Step, given: list[Value | None]) -> None:
        """What depends on shapes and constants alone, at both sizes."""
        _need(step.function is not None)
        found: list[tuple[np.ndarray, ...]] = []
        for index in range(2):
            arguments = [_at(value, index) for value in given]
            result = step.function(*arguments)  # type: ignore[misc]
            results = result if isinstance(result, tuple) else (result,)
            found.append(tuple(_array(r) for r in results))
        for name, first, second in zip(step.outputs, *found, strict=False):
            self.values[name] = (first, second)

    def _axis(
        self, step: Step, given: list[Value | None], attributes: dict[str, Any], out: _Ghost
    ) -> int:
        """Where the samples of the result lie, for inputs of known shapes.

        Raises:
            _Unproven: Where samples meet, sizes do not fit, or no rule covers the operator.
        """
        kind = step.operator
        x = given[0]
        if step.layer:
            return _through_layer(self.module.get_submodule(step.layer), x, out, kind)
        if kind in _ELEMENTWISE:
            return _aligned(given, out)
        if kind in _SPATIAL or kind in _FIRST:
            _need(isinstance(x, _Ghost) and x.axis == 0 and x.small[0] == out.small[0])
            _need(not any(isinstance(other, _Ghost) for other in given[1:]))
            return 0
        if kind == "MatMul":
            return _product(given[0], given[1], out)
        if kind == "Gather":
            return _picked(given, attributes.get("axis", 0))
        if kind == "Concat":
            return _joined(given, attributes["axis"], out)
        _need(isinstance(x, _Ghost))
        assert isinstance(x, _Ghost)
        rule = _RULES.get(kind) or _reduced(kind)
        _need(not any(isinstance(other, _Ghost) for other in given[1:]))
        return rule(x, given, attributes, out)


def _need(condition: bool) -> None:
    if not condition:
        raise _Unproven


def _at(value: Value | None, index: int) -> Any:
    if isinstance(value, _Ghost):
        # What asks for a shape needs nothing else of a tensor.
        return np.broadcast_to(np.float32(0), value.large if index else value.small)
    return None if value is None else value[index]


def _array(result: Any) -> np.ndarray:
    return result.numpy() if isinstance(result, Tensor) else np.asarray(result)


def _fixed(value: Value | None) -> np.ndarray:
    """A host array that is the same at both sizes."""
    _need(value is not None and not isinstance(value, _Ghost))
    first, second = value  # type: ignore[misc]
    _need(first is second or np.array_equal(first, second))
    return first


def _aligned(given: list[Value | None], out: _Ghost) -> int:
    place = len(out.small) - out.axis
    shapes = []
    for value in filter(None, given):
        if isinstance(value, _Ghost):
            _need(len(value.small) - value.axis == place)
            shapes.append(value.small)
            continue
        first, second = value
        shapes.append(first.shape)
        if first is second or (first.shape == second.shape and np.array_equal(first, second)):
            continue
        # A mask spread over the batch: the same for every sample.
        _need(first.ndim == second.ndim >= place)
        axis = first.ndim - place
        row = first.take([0], axis=axis)
        _need(bool((first == row).all()) and bool((second == row).all()))
    _need(np.broadcast_shapes(*shapes) == out.small)
    return out.axis


def _product(a: Value | None, b: Value | None, out: _Ghost) -> int:
    shapes = [v.small if isinstance(v, _Ghost) else _fixed(v).shape for v in (a, b)]
    _need(min(map(len, shapes)) >= 2 and shapes[0][-1] == shapes[1][-2])
    _need(np.broadcast_shapes(shapes[0][:-2], shapes[1][:-2]) == out.small[:-2])
    place = len(out.small) - out.axis
    for value, least in ((a, 2), (b, 3)):
        if isinstance(value, _Ghost):
            _need(len(value.small) - value.axis == place >= least)
    _need(place >= 3 or not isinstance(b, _Ghost))
    return out.axis


def _picked(given: list[Value | None], axis: int) -> int:
    x, indices = given
    if isinstance(indices, _Ghost):
        table = _fixed(x)
        axis %= table.ndim
        return axis + indices.axis
    assert isinstance(x, _Ghost)
    axis %= len(x.small)
    _need(axis != x.axis)
    return x.axis if x.axis < axis else x.axis - 1 + _fixed(indices).ndim


def _joined(given: list[Value | None], axis: int, out: _Ghost) -> int:
    for value in filter(None, given):
        if isinstance(value, _Ghost):
            _need(value.axis == out.axis)
            continue
        first, second = value
        row = first.take([0], axis=out.axis)
        _need(bool((first == row).all()) and bool((second == row).all()))
        _need(first.shape[out.axis] == out.small[out.axis])
    _need(axis % len(out.small) != out.axis)
    return out.axis


def _through_layer(layer: nn.Module, x: Value | None, out: _Ghost, kind: str) -> int:
    assert isinstance(x, _Ghost)
    if isinstance(layer, nn.Linear):
        _need(x.axis < len(x.small) - 1 and x.small[-1] == layer.in_features)
        return x.axis
    if isinstance(layer, nn.LayerNorm):
        normal = tuple(layer.normalized_shape)
        _need(x.axis < len(x.small) - len(normal) and x.small[-len(normal) :] == normal)
        return x.axis
    if isinstance(layer, nn.Dropout | nn.Embedding):
        return x.axis
    if isinstance(layer, nn.modules.conv._ConvNd):
        _need(x.axis == 0 and x.small[1] == layer.in_channels)
        return 0
    if isinstance(layer, nn.modules.batchnorm._BatchNorm):
        _need(x.axis == 0 and x.small[1] == layer.num_features)
        return 0
    raise _Unproven


Rule = Callable[[_Ghost, list[Value | None], dict[str, Any], _Ghost], int]


def _reduced(kind: str) -> Rule:
    _need(kind.startswith("Reduce"))

    def rule(x: _Ghost, given: list[Value | None], attributes: dict[str, Any], out: _Ghost) -> int:
        second = given[1] if len(given) > 1 else None
        axes = attributes.get("axes") if second is None else _fixed(second).reshape(-1).tolist()
        _need(bool(axes))
        gone = {axis % len(x.small) for axis in axes or []}
        _need(x.axis not in gone)
        if attributes.get("keepdims", 1):
            return x.axis
        return x.axis - sum(axis < x.axis for axis in gone)

    return rule


def _along(x: _Ghost, given: list[Value | None], attributes: dict[str, Any], out: _Ghost) -> int:
    """Softmax and its kin, also as before opset 13, where all axes from one on go together."""
    axis = attributes.get("axis")
    _need(axis is not None or x.axis == 0)
    rank = len(x.small)
    _need(rank > 1 and (axis is None or x.axis < axis % rank))
    return x.axis


def _turned(x: _Ghost, given: list[Value | None], attributes: dict[str, Any], out: _Ghost) -> int:
    order = attributes.get("perm") or list(range(len(x.small)))[::-1]
    return list(order).index(x.axis)


def _reshaped(x: _Ghost, given: list[Value | None], attributes: dict[str, Any], out: _Ghost) -> int:
    """Samples stay together where as many numbers stand before their axis as after."""
    _need(prod(x.small) == prod(out.small) and prod(x.large) == prod(out.large))
    _need(prod(x.small[: x.axis]) == prod(out.small[: out.axis]))
    return out.axis


def _cut(x: _Ghost, given: list[Value | None], attributes: dict[str, Any], out: _Ghost) -> int:
    """Slice and Split along other axes: a part that keeps all samples is none of theirs."""
    _need(x.small[x.axis] == out.small[out.axis] and x.large[x.axis] == out.large[out.axis])
    if len(given) > 4:
        axes, steps = _fixed(given[3]) if given[3] else None, _fixed(given[4]) if given[4] else None
        if steps is not None and (steps < 0).any():
            _need(axes is not None)
            _need(x.axis not in {int(a) % len(x.small) for a in axes.reshape(-1)})  # type: ignore[union-attr]
    return x.axis


def _spread_out(
    x: _Ghost, given: list[Value | None], attributes: dict[str, Any], out: _Ghost
) -> int:
    return len(out.small) - len(x.small) + x.axis


_RULES: dict[str, Rule] = {
    "Softmax": _along, "LogSoftmax": _along, "Hardmax": _along, "Transpose": _turned,
    "Reshape": _reshaped, "Flatten": _reshaped, "Squeeze": _reshaped, "Unsqueeze": _reshaped,
    "Slice": _cut, "Split": _cut, "Expand": _spread_out,
}  # fmt: skip
