"""Which values of a graph are the network's outputs, where what it puts out is not all numbers.

Converters of scikit-learn let a graph end in labels, which may be texts, and in ZipMap, which makes
of each sample's probabilities a dictionary. The network ends before these: it is read up to the
probabilities, and the file keeps the rest as it is.
"""

from onnx import GraphProto, TensorProto, ValueInfoProto

ZIP = "ZipMap"
DOMAIN = "ai.onnx.ml"


def network_outputs(graph: GraphProto) -> list[str]:
    """Names of the values that a network puts out: tensors of numbers, in the graph's order."""
    makers = {name: node for node in graph.node for name in node.output}
    found: list[str] = []
    for output in graph.output:
        node = makers.get(output.name)
        name = output.name
        if node is not None and node.op_type == ZIP and node.domain == DOMAIN and node.input:
            name = node.input[0]
        elif is_text(output):
            continue
        if name not in found:
            found.append(name)
    return found


def is_text(value: ValueInfoProto) -> bool:
    """Whether a value is a tensor of texts."""
    kind = value.type
    return bool(kind.HasField("tensor_type") and kind.tensor_type.elem_type == TensorProto.STRING)
