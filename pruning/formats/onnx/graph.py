"""The graph without its detours: constants with their origin, and the nodes that matter."""

from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, numpy_helper

from pruning.errors import SecateurError
from pruning.formats.onnx.parse import shown

FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
_EXACT = (
    TensorProto.BOOL, TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64,
    TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64,
)  # fmt: skip


@dataclass(frozen=True)
class Constant:
    """A constant value: the tensor of the file it comes from, and the transposition on the way.

    `array` is the tensor as the file holds it; the value is `array.transpose(permutation)`.
    """

    source: str
    array: np.ndarray
    permutation: tuple[int, ...]

    @property
    def value(self) -> np.ndarray:
        """The constant as the graph sees it under this name."""
        return self.array.transpose(self.permutation)


@dataclass
class Graph:
    """What the importer works on.

    `nodes` are those that a graph output depends on, without constants and the Identity and
    Transpose nodes that only rename or turn them. `derived` maps a value computed from constants
    alone to the node that computes it, `readers` a value to the first node that reads it.
    """

    proto: ModelProto
    inputs: list[onnx.ValueInfoProto]
    outputs: list[str]
    nodes: list[NodeProto] = field(default_factory=list)
    constants: dict[str, Constant] = field(default_factory=dict)
    uses: dict[str, int] = field(default_factory=dict)
    readers: dict[str, NodeProto] = field(default_factory=dict)
    derived: dict[str, str] = field(default_factory=dict)


def read_graph(proto: ModelProto) -> Graph:
    """Resolves constants and drops dead nodes.

    Raises:
        SecateurError: `operator_attribute_unsupported` for constants of types that are not read,
            `model_invalid` for tensors whose bytes do not fit their shape.
    """
    constants = {t.name: _constant(t.name, t) for t in proto.graph.initializer}
    outputs = [output.name for output in proto.graph.output]
    live = _live(proto.graph.node, outputs)
    nodes = []
    for node in live:
        if node.op_type == "Constant":
            constants[node.output[0]] = _constant(node.output[0], constant_tensor(node))
        elif (turned := _looked_through(node, constants)) is not None:
            constants[node.output[0]] = turned
        else:
            nodes.append(node)
    graph = Graph(
        proto=proto,
        inputs=[i for i in proto.graph.input if i.name not in constants],
        outputs=outputs,
        nodes=nodes,
        constants=constants,
    )
    for name in [*(n for node in nodes for n in node.input), *outputs]:
        graph.uses[name] = graph.uses.get(name, 0) + 1
    for node in nodes:
        for name in node.input:
            graph.readers.setdefault(name, node)
        known = [name in constants or name in graph.derived for name in node.input if name]
        if known and all(known):
            graph.derived.update(dict.fromkeys(node.output, label(node)))
    return graph


def label(node: NodeProto) -> str:
    """How messages call a node: its name and operator."""
    name = node.name or (node.output[0] if node.output else "")
    return f"{shown(name)} ({shown(node.op_type)})" if name else shown(node.op_type)


def type_name(kind: int) -> str:
    """ONNX's name of a tensor type, or its number where there is no such type."""
    return str(TensorProto.DataType.Name(kind) if kind in TensorProto.DataType.values() else kind)


def constant_tensor(node: NodeProto) -> TensorProto:
    """The value of a Constant node as a tensor.

    Raises:
        SecateurError: `operator_attribute_unsupported` for sparse and text values.
    """
    if len(node.attribute) != 1:
        raise _unread(label(node), f"a constant with {len(node.attribute)} values")
    attribute = node.attribute[0]
    if attribute.ref_attr_name:
        raise _unread(label(node), "a constant taken from a function's attribute")
    if attribute.type == AttributeProto.TENSOR:
        return attribute.t
    if attribute.type == AttributeProto.FLOAT:
        return numpy_helper.from_array(np.array(attribute.f, np.float32))
    if attribute.type == AttributeProto.FLOATS:
        return numpy_helper.from_array(np.array(attribute.floats, np.float32))
    if attribute.type == AttributeProto.INT:
        return numpy_helper.from_array(np.array(attribute.i, np.int64))
    if attribute.type == AttributeProto.INTS:
        return numpy_helper.from_array(np.array(attribute.ints, np.int64))
    raise _unread(label(node), f"a constant given as {attribute.name}")


def _live(nodes, outputs: list[str]) -> list[NodeProto]:  # type: ignore[no-untyped-def]
    wanted, live = set(outputs), []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            live.append(node)
    return live[::-1]


def _constant(name: str, tensor: TensorProto) -> Constant:
    if tensor.data_type not in (*FLOATS, *_EXACT):
        kind = type_name(tensor.data_type)
        raise _unread(shown(name), f"a constant of type {kind}")
    try:
        array = numpy_helper.to_array(tensor)
    except (ValueError, TypeError) as error:
        raise SecateurError(
            "model_invalid", f"The tensor's bytes do not fit its shape ({shown(str(error))}).",
            where=shown(name),
        ) from None  # fmt: skip
    return Constant(name, array, tuple(range(array.ndim)))


def _looked_through(node: NodeProto, constants: dict[str, Constant]) -> Constant | None:
    """The constant that an Identity or Transpose of a constant stands for."""
    if node.op_type not in ("Identity", "Transpose") or node.input[0] not in constants:
        return None
    constant = constants[node.input[0]]
    if node.op_type == "Identity":
        return constant
    rank = constant.array.ndim
    order = next((list(a.ints) for a in node.attribute if a.name == "perm"), [*range(rank)][::-1])
    if sorted(order) != list(range(rank)):
        raise SecateurError(
            "model_invalid", f"perm {order} is no permutation of {rank} axes.", where=label(node)
        )
    return Constant(
        constant.source, constant.array, tuple(constant.permutation[axis] for axis in order)
    )


def _unread(where: str, what: str) -> SecateurError:
    return SecateurError(
        "operator_attribute_unsupported",
        f"The graph holds {what}, which is not read.",
        where=where,
        hint="Export the model with dense float32, float16 or float64 weights.",
    )
