"""Which values of a graph are the network's outputs, where what it puts out is not all numbers.

Converters of scikit-learn let a graph end in labels, which may be texts, in ZipMap, which makes of
each sample's probabilities a dictionary, in one output for each class, or beside a list of the
classes. The network ends before these: it is read up to the probabilities, and the file keeps the
rest as it is.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from onnx import GraphProto, TensorProto, ValueInfoProto, numpy_helper

from pruning.formats.onnx.operation import Operation

ZIP = "ZipMap"
DOMAIN = "ai.onnx.ml"


def network_outputs(graph: GraphProto, nodes: Sequence[Operation]) -> list[str]:
    """Names of the values that a network puts out, in the graph's order.

    They are tensors of numbers that depend on an input; where none does, all of numbers.

    Args:
        graph: The model's own.
        nodes: Its nodes.
    """
    makers = {name: node for node in nodes for name in node.output}
    flat = _flat_shapes(graph)
    columns = {output.name: _sliced(output.name, makers, flat) for output in graph.output}
    together = Counter(filter(None, columns.values()))
    found: list[str] = []
    for output in graph.output:
        node = makers.get(output.name)
        name = output.name
        whole = columns[name]
        if node is not None and node.op_type == ZIP and node.domain == DOMAIN and node.input:
            name = node.input[0]
        elif is_text(output):
            continue
        elif whole is not None and together[whole] > 1:
            name = whole
        if name not in found:
            found.append(name)
    dependent = _dependent(graph, nodes)
    return [name for name in found if name in dependent] or found


def is_text(value: ValueInfoProto) -> bool:
    """Whether a value is a tensor of texts."""
    kind = value.type
    return bool(kind.HasField("tensor_type") and kind.tensor_type.elem_type == TensorProto.STRING)


def _sliced(name: str, makers: Mapping[str, Operation], flat: set[str]) -> str | None:
    """The matrix of which a value is a slice made flat: as an output, one class of a classifier."""
    reshape = makers.get(name)
    if reshape is None or reshape.op_type != "Reshape" or flat.isdisjoint(reshape.input[1:]):
        return None
    inner = makers.get(reshape.input[0])
    return inner.input[0] if inner is not None and inner.op_type == "Slice" else None


def _flat_shapes(graph: GraphProto) -> set[str]:
    """Initialisers that make a Reshape give one axis."""
    return {
        tensor.name
        for tensor in graph.initializer
        if tensor.data_type == TensorProto.INT64 and list(tensor.dims) == [1]
        and numpy_helper.to_array(tensor).tolist() == [-1]
    }  # fmt: skip


def _dependent(graph: GraphProto, nodes: Sequence[Operation]) -> set[str]:
    """Values that depend on an input of the graph, those of control flow among them in any case."""
    found = {value.name for value in graph.input}
    found.difference_update(tensor.name for tensor in graph.initializer)
    for node in nodes:
        if node.bodies or not found.isdisjoint(node.input):
            found.update(node.output)
    return found
