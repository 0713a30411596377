"""ONNX graphs whose sigmoids onnxruntime computes to seven digits, however small the results are.

Its own Sigmoid of float32 is off by up to 1.6e-7 whatever the result. A text detector's map is
1e-6 where there is no text, so that a tenth of it is rounding, and a wrong weight would not show.
Its Softplus and Exp are off by 5e-7 of their result, and sigmoid(x) = exp(-softplus(-x)).
"""

from collections.abc import Iterator

from onnx import GraphProto, ModelProto, NodeProto, helper

from pruning.formats.onnx.parse import graphs


def has_sigmoids(proto: ModelProto) -> bool:
    """Whether any node, in a subgraph too, is a Sigmoid."""
    return any(node.op_type == "Sigmoid" for graph in graphs(proto) for node in graph.node)


def by_exponentials(proto: ModelProto) -> ModelProto:
    """The same network with every Sigmoid as exp(-softplus(-x)); a copy."""
    copy = ModelProto()
    copy.CopyFrom(proto)
    for graph in list(graphs(copy)):
        nodes = list(_written_out(graph))
        del graph.node[:]
        graph.node.extend(nodes)
    return copy


def _written_out(graph: GraphProto) -> Iterator[NodeProto]:
    for node in graph.node:
        if node.op_type != "Sigmoid":
            yield node
            continue
        value = node.input[0]
        for number, kind in enumerate(("Neg", "Softplus", "Neg")):
            inner = f"{node.output[0]}/exponential_{number}"
            yield helper.make_node(kind, [value], [inner])
            value = inner
        yield helper.make_node("Exp", [value], [node.output[0]])
