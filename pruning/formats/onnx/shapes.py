"""The shapes of all values as ONNX's own inference gives them: fast, and before anything runs."""

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from math import prod
from typing import Any

import onnx.shape_inference
from onnx import ModelProto, TensorProto, ValueInfoProto, helper, numpy_helper

from pruning.formats.onnx.binding import Route
from pruning.formats.onnx.graph import Constant, Graph, Shapes

# Larger constants are never sizes or axes; inference gets their shape without their numbers.
_SMALL = 1024
_FEW = 16  # real numbers that may be scales or the ends of a range

_BATCH = "the batch"
SMALL, LARGE = 2, 3
"""Batch sizes at which shapes are compared."""

OPEN = ((64, 16), (224, 128), (48, 1024))
"""What open sizes are tried at: those of images and volumes, and those of sequences."""

Fixed = Mapping[str, tuple[int | None, ...]]
"""All sizes of each input; None for that along which the samples lie."""


def infer_shapes(graph: Graph, batch: int | None = None, fixed: Fixed | None = None) -> Shapes:
    """Shape and bytes a number of every value that inference reaches; empty where it gives up.

    What the file itself declares of values in between and of outputs is not believed.

    Args:
        graph: Of a checked model.
        batch: The number of samples; as declared where left out.
        fixed: The sizes of each input; the first is that of the samples where left out.
    """
    found: Shapes = {}
    for name, dims, itemsize in _inferred(graph, batch, fixed or {}):
        sizes = [d.dim_value or (0 if d.HasField("dim_value") else None) for d in dims]
        found[name] = (tuple(sizes), itemsize)
    return found


def shapes_at_both(graph: Graph, fixed: Fixed) -> tuple[Shapes, Shapes]:
    """The same at the batch sizes `SMALL` and `LARGE`, inferred once with a name for the batch.

    Inference with a name reaches fewer values, as it does not calculate with it.
    """
    small: Shapes = {}
    large: Shapes = {}
    for name, dims, itemsize in _inferred(graph, _BATCH, fixed):
        sizes: list[int | None] = []
        places = []
        for axis, d in enumerate(dims):
            size = d.dim_value
            if not size and not d.HasField("dim_value"):
                size = None
                if d.dim_param == _BATCH:
                    places.append(axis)
                    size = SMALL
            sizes.append(size)
        small[name] = (tuple(sizes), itemsize)
        for axis in places:
            sizes[axis] = LARGE
        large[name] = (tuple(sizes), itemsize)
    return small, large


def _inferred(
    graph: Graph, batch: int | str | None, fixed: Fixed
) -> Iterator[tuple[str, Any, int]]:
    """Name, sizes and bytes a number of every value whose rank inference finds."""
    light = graph.light or _light(graph)
    graph.light = light
    for value, copy in zip(graph.inputs, light.graph.input, strict=False):
        copy.CopyFrom(value)
        dims = copy.type.tensor_type.shape.dim
        sizes = fixed.get(value.name) or (None,)
        for dim, size in zip(dims, sizes, strict=False):
            if size is not None:
                dim.dim_value = size
            elif isinstance(batch, str):
                dim.dim_param = batch
            elif isinstance(batch, int):
                dim.dim_value = batch
        for dim in dims:
            if dim.HasField("dim_value") and dim.dim_value < 0:  # PaddlePaddle's open sizes
                dim.ClearField("dim_value")
    try:
        inferred = onnx.shape_inference.infer_shapes(light, data_prop=True).graph
    except Exception:  # shapes stay unknown, which callers must expect anyhow
        return
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        kind = value.type.tensor_type
        if value.type.HasField("tensor_type") and kind.HasField("shape"):
            yield value.name, kind.shape.dim, _itemsize(kind.elem_type)


def closed(
    inputs: Iterable[ValueInfoProto], plane: int, line: int
) -> dict[str, tuple[int | None, ...]]:
    """All sizes of each input, open ones of images and of others as given, the first left open."""
    found = {}
    for value in inputs:
        dims = value.type.tensor_type.shape.dim
        size = plane if len(dims) > 3 else line
        rest = (d.dim_value if d.HasField("dim_value") and d.dim_value >= 0 else size for d in dims)
        found[value.name] = (None, *list(rest)[1:]) if dims else ()
    return found


def _light(graph: Graph) -> ModelProto:
    """The graph with its inputs first, without the numbers of large constants."""
    proto = graph.proto
    light = ModelProto(ir_version=max(proto.ir_version, 4), opset_import=proto.opset_import)
    light.graph.name = "graph"
    light.graph.node.extend(node.proto for node in graph.nodes)
    for value in graph.inputs:
        light.graph.input.add(name=value.name)
    read = {name for node in graph.nodes for name in node.input}
    for name in sorted(read & graph.constants.keys()):
        _lighten(graph.constants[name], name, light)
    kinds = {v.name: v.type.tensor_type.elem_type for v in proto.graph.output}
    for name in graph.outputs:
        bare = light.graph.output.add(name=name)
        bare.type.tensor_type.elem_type = kinds.get(name) or TensorProto.FLOAT
    return light


def _lighten(constant: Constant, name: str, light: ModelProto) -> None:
    shape = constant.shape
    numbers = prod(shape)
    if constant.is_real and numbers > _FEW:
        kind = helper.np_dtype_to_tensor_dtype(constant.dtype)
        light.graph.initializer.add(name=name, data_type=kind, dims=shape)
        return
    if numbers <= _SMALL:
        if isinstance(constant.tensor, TensorProto) and constant.route == Route(shape):
            copy = light.graph.initializer.add()
            copy.CopyFrom(constant.tensor)
            copy.name = name
        else:
            light.graph.initializer.append(numpy_helper.from_array(constant.value, name))
        return
    value = light.graph.input.add(name=name)
    if isinstance(constant.tensor, TensorProto) and constant.route.dtype is None:
        value.type.tensor_type.elem_type = constant.tensor.data_type
    else:
        value.type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(constant.dtype)
    value.type.tensor_type.shape.SetInParent()
    for size in shape:
        value.type.tensor_type.shape.dim.add(dim_value=size)


@cache
def _itemsize(kind: int) -> int:
    try:
        size = int(helper.tensor_dtype_to_np_dtype(kind).itemsize)
    except (KeyError, TypeError):
        return 8
    return 4 if kind in (TensorProto.FLOAT16, TensorProto.BFLOAT16) else size
