"""Whether every sample of a batch goes through a graph on its own, told from shapes alone.

Shapes at batch sizes of 2 and 3 show along which axis the samples of each value lie; a rule for
each family of operators says whether it keeps them apart. What no rule covers is not proven, and
has to be found out by running.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
from torch import Tensor, nn

from pruning.errors import SecateurError
from pruning.formats.failures import FAILURES
from pruning.formats.onnx.graph import Graph, Shapes, first_output
from pruning.formats.onnx.module import OnnxModule, Step, layer_at
from pruning.formats.onnx.outlines import ELEMENTWISE, Shape, dummy, outline, spread_shape
from pruning.formats.onnx.shapes import LARGE, SMALL
from pruning.layers import MatMul

_SPATIAL = frozenset((
    "AveragePool", "BatchNormalization", "Conv", "ConvTranspose", "GlobalAveragePool",
    "GlobalMaxPool", "InstanceNormalization", "LRN", "MaxPool", "DepthToSpace", "SpaceToDepth",
))  # fmt: skip
_RESHAPING = frozenset(("Reshape", "Flatten", "Squeeze", "Unsqueeze"))
_FIRST = frozenset(("Pad", "Resize", "Tile", "Upsample"))


@dataclass(frozen=True)
class _Ghost:
    """A tensor of which only the shapes at both batch sizes and the samples' axis are known.

    The axis may hold the samples `outer` times over, as where steps and samples are one axis.
    """

    small: Shape
    large: Shape
    axis: int
    outer: int = 1


@dataclass(frozen=True)
class Proof:
    """Samples stay apart: the shapes of all values at `SMALL`, and where outputs hold samples."""

    shapes: dict[str, Shape]
    axes: dict[str, int]


class _Unproven(Exception):  # noqa: N818 - no error: the graph is run instead
    """No rule says that samples stay apart."""


Value = tuple[np.ndarray, np.ndarray] | _Ghost


def shapes_apart(graph: Graph, module: OnnxModule, small: Shapes, large: Shapes) -> Proof | None:
    """Shapes of all results, and the samples' axis in outputs, if samples certainly stay apart.

    Args:
        graph: The graph.
        module: Its steps.
        small: What is known of shapes at a batch size of `SMALL`.
        large: The same at `LARGE`.
    """
    try:
        spread = _Spread(graph, module, small, large)
        if not spread.outputs_apart():
            return None
        shapes = {
            name: value.small if isinstance(value, _Ghost) else value[0].shape
            for name, value in spread.values.items()
        }
        held = {name: spread.values[name] for name in module.output_names}
        axes = {name: value.axis for name, value in held.items() if isinstance(value, _Ghost)}
        return Proof(shapes, axes)
    except (_Unproven, SecateurError, *FAILURES):
        return None


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
            held = dummy(reference.route.shapes[-1])
            self.values[name] = (held, held)
        for name in module.input_names:
            self.values[name] = self._ghost(name)
        for step in module.steps:
            self._take(step)

    def outputs_apart(self) -> bool:
        found = [self.values[name] for name in self.module.output_names]
        return all(isinstance(value, _Ghost) and value.outer == 1 for value in found)

    def _ghost(self, name: str) -> _Ghost:
        first, second = (shapes[name][0] for shapes in self.shapes)
        _need(None not in first and None not in second)
        return _between(first, second)  # type: ignore[arg-type]

    def _outlined(
        self, step: Step, given: list[Value | None], attributes: dict[str, Any], place: int
    ) -> _Ghost:
        layer = layer_at(self.module, step.layer) if step.layer else None
        first, second = (
            outline(step.operator, [_at(value, index) for value in given], attributes, layer, place)
            for index in range(2)
        )
        return _between(first, second)

    def _take(self, step: Step) -> None:
        given = [self.values[name] if name else None for name in step.inputs]
        ghosts = [value for value in given if isinstance(value, _Ghost)]
        if not ghosts or step.operator in ("Shape", "Size"):
            self._compute(step, given)
            return
        if step.layer and isinstance(layer_at(self.module, step.layer), nn.RNNBase):
            # Initial states of a size that is written down fit that batch size alone.
            _need(all(_follows_batch(value) for value in given[1:]))
        main = step.outputs[0]
        if main.endswith("/padded"):
            _need(ghosts[0].axis == 0)
            self.values[main] = ghosts[0]
            return
        node = self.nodes.get(main)
        bare = step.layer or step.operator in ELEMENTWISE
        attributes = {} if bare or node is None else node.plain
        for place, output in enumerate(step.outputs):
            found = [shapes.get(output, ((None,), 0))[0] for shapes in self.shapes]
            known = None not in found[0] and None not in found[1]
            if not known and output is not main and step.operator != "Split":
                continue  # read by nothing, or an error where it is read
            ghost = self._ghost(output) if known else self._outlined(step, given, attributes, place)
            outer = ghosts[0].outer
            _need(all(other.outer == outer for other in ghosts))
            if step.operator in _RESHAPING:
                outer = _outer(ghosts[0], ghost)
            _need(self._axis(step, given, attributes, ghost) == ghost.axis)
            self.values[output] = replace(ghost, outer=outer)

    def _compute(self, step: Step, given: list[Value | None]) -> None:
        """What depends on shapes and constants alone, at both sizes."""
        if step.layer:
            # Rows of a table at positions that no sample decides; nothing is sized by them.
            layer = layer_at(self.module, step.layer)
            indices = [_at(given[0], index) for index in range(2)]
            _need(isinstance(layer, nn.Embedding) and np.array_equal(*indices))
            rows = dummy(outline(step.operator, indices[:1], {}, layer))
            self.values[step.outputs[0]] = (rows, rows)
            return
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
        layer = layer_at(self.module, step.layer) if step.layer else None
        if isinstance(layer, MatMul):
            held = dummy(tuple(layer.weight.shape))
            fixed = (held, held)
            return _product(fixed, x, out) if layer.left else _product(x, fixed, out)
        if step.layer:
            for other in given[1:]:
                _need(kind in ("LSTM", "GRU", "RNN") or not isinstance(other, _Ghost))
                _need(not isinstance(other, _Ghost) or other.axis == 1)
            return _through_layer(layer_at(self.module, step.layer), x, out, kind)
        if kind in ELEMENTWISE:
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


def _between(small: Shape, large: Shape) -> _Ghost:
    """The tensor of these shapes at the two batch sizes, one axis of which holds the samples."""
    _need(len(small) == len(large))
    axes = [i for i, (a, b) in enumerate(zip(small, large, strict=True)) if a != b]
    _need(len(axes) == 1 and small[axes[0]] * LARGE == large[axes[0]] * SMALL)
    return _Ghost(small, large, axes[0])


def _at(value: Value | None, index: int) -> Any:
    if isinstance(value, _Ghost):
        return dummy(value.large if index else value.small)
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
    for value in (v for v in given if v is not None):
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
    _need(spread_shape(*shapes) == out.small)
    return out.axis


def _product(a: Value | None, b: Value | None, out: _Ghost) -> int:
    shapes = [v.small if isinstance(v, _Ghost) else _fixed(v).shape for v in (a, b)]
    _need(min(map(len, shapes)) >= 2 and shapes[0][-1] == shapes[1][-2])
    _need(spread_shape(shapes[0][:-2], shapes[1][:-2]) == out.small[:-2])
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
    for value in (v for v in given if v is not None):
        if isinstance(value, _Ghost):
            _need(value.axis == out.axis)
            continue
        first, second = value
        row = first.take([0], axis=out.axis)
        _need(bool((first == row).all()) and bool((second == row).all()))
        _need(first.shape[out.axis] == out.small[out.axis])
    _need(axis % len(out.small) != out.axis)
    return out.axis


def _follows_batch(value: Value | None) -> bool:
    return value is None or isinstance(value, _Ghost) or value[0].shape != value[1].shape


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
    if isinstance(layer, nn.RNNBase) and not layer.batch_first:
        _need(x.axis == 1 and len(x.small) == 3)
        return len(out.small) - 2
    _need(kind in _SPATIAL and x.axis == 0)
    return 0


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
    """Samples stay in one axis where as much stands before them as did; see `_outer`."""
    _need(prod(x.small) == prod(out.small) and prod(x.large) == prod(out.large))
    return out.axis


def _outer(x: _Ghost, out: _Ghost) -> int:
    """How often the samples' axis of a reshaped value holds them over."""
    before, after = prod(x.small[: x.axis]) * x.outer, prod(out.small[: out.axis])
    _need(before % after == 0)
    outer = before // after
    _need(out.small[out.axis] % (outer * SMALL) == 0)
    return outer


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
