"""The shapes of all values as ONNX's own inference gives them: fast, and before anything runs."""

from collections.abc import Iterable, Mapping
from functools import cache
from math import prod

import onnx.shape_inference
from onnx import ModelProto, TensorProto, ValueInfoProto, helper, numpy_helper

from pruning.formats.onnx.binding import Route
from pruning.formats.onnx.graph import Constant, Graph, Shapes

# Larger constants are never sizes or axes; inference gets their shape without their numbers.
_SMALL = 1024
_FEW = 16  # real numbers that may be scales or the ends of a range

SMALL, LARGE = 2, 3
"""Batch sizes at which shapes are compared."""

OPEN = ((64, 16), (224, 128), (48, 1024))
"""What open sizes are tried at: those of images and volumes, and those of sequences."""

Fixed = Mapping[str, tuple[int, ...]]


def infer_shapes(graph: Graph, batch: int | None = None, fixed: Fixed | None = None) -> Shapes:
    """Shape and bytes a number of every value that inference reaches; empty where it gives up.

    What the file itself declares of values in between and of outputs is not believed.

    Args:
        graph: Of a checked model.
        batch: What the first size of each input is taken to be; as declared where left out.
        fixed: All sizes of each input but the first.
    """
    light = graph.light or _light(graph)
    graph.light = light
    for value, copy in zip(graph.inputs, light.graph.input, strict=False):
        copy.CopyFrom(value)
        dims = copy.type.tensor_type.shape.dim
        for dim, size in zip(dims[1:], (fixed or {}).get(value.name, ()), strict=False):
            dim.dim_value = size
        if batch is not None and dims:
            dims[0].dim_value = batch
        for dim in dims:
            if dim.HasField("dim_value") and dim.dim_value < 0:  # PaddlePaddle's open sizes
                dim.ClearField("dim_value")
    try:
        inferred = onnx.shape_inference.infer_shapes(light, data_prop=True).graph
    except Exception:  # shapes stay unknown, which callers must expect anyhow
        return {}
    found: Shapes = {}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        kind = value.type.tensor_type
        if value.type.HasField("tensor_type") and kind.HasField("shape"):
            dims = kind.shape.dim
            sizes = tuple([d.dim_value or (0 if d.HasField("dim_value") else None) for d in dims])
            found[value.name] = (sizes, _itemsize(kind.elem_type))
    return found


def closed(inputs: Iterable[ValueInfoProto], plane: int, line: int) -> dict[str, tuple[int, ...]]:
    """All sizes of each input but the first, open ones of images and of others as given."""
    found = {}
    for value in inputs:
        dims = value.type.tensor_type.shape.dim
        size = plane if len(dims) > 3 else line
        found[value.name] = tuple(
            d.dim_value if d.HasField("dim_value") and d.dim_value >= 0 else size for d in dims[1:]
        )
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
        bare.type.tensor_type.elem_type = kinds[name]
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
