"""The shapes of all values as ONNX's own inference gives them: fast, and before anything runs."""

import onnx.shape_inference
from onnx import GraphProto, ModelProto, TensorProto, helper

# Larger constants are never sizes or axes; inference gets their shape without their numbers.
_SMALL = 1024

Shape = tuple[int | None, ...]


def infer_shapes(proto: ModelProto, batch: int | None = None) -> dict[str, tuple[Shape, int]]:
    """Shape and bytes a number of every value that inference reaches; empty where it gives up.

    What the file itself declares of values in between and of outputs is not believed.

    Args:
        proto: A checked model.
        batch: What the first size of each input is taken to be; as declared where left out.
    """
    light = ModelProto(ir_version=max(proto.ir_version, 4), opset_import=proto.opset_import)
    _lighten(proto.graph, light.graph, batch)
    try:
        inferred = onnx.shape_inference.infer_shapes(light, data_prop=True).graph
    except Exception:  # shapes stay unknown, which callers must expect anyhow
        return {}
    found = {}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        kind = value.type.tensor_type
        if value.type.HasField("tensor_type") and kind.HasField("shape"):
            dims = tuple(d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim)
            found[value.name] = (dims, _itemsize(kind.elem_type))
    return found


def _lighten(graph: GraphProto, light: GraphProto, batch: int | None) -> None:
    light.name = graph.name or "graph"
    light.node.extend(graph.node)
    constants = {tensor.name for tensor in graph.initializer}
    for value in graph.input:
        if value.name in constants:
            continue
        copy = light.input.add()
        copy.CopyFrom(value)
        if batch is not None and copy.type.tensor_type.shape.dim:
            copy.type.tensor_type.shape.dim[0].dim_value = batch
    for tensor in graph.initializer:
        if sum(tensor.dims) <= _SMALL and tensor.ByteSize() <= 64 * _SMALL:
            light.initializer.add().CopyFrom(tensor)
        else:
            light.input.append(
                helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            )
    for value in graph.output:
        bare = light.output.add(name=value.name)
        bare.type.tensor_type.elem_type = value.type.tensor_type.elem_type


def _itemsize(kind: int) -> int:
    try:
        size = int(helper.tensor_dtype_to_np_dtype(kind).itemsize)
    except (KeyError, TypeError):
        return 8
    return 4 if kind == TensorProto.FLOAT16 else size
