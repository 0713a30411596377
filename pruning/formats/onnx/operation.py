"""A node of the file as plain Python values, read from the protocol buffer once."""

from functools import cached_property
from typing import Any

from onnx import AttributeProto, GraphProto, NodeProto, TensorProto

PLAIN = frozenset((
    AttributeProto.FLOAT, AttributeProto.INT, AttributeProto.STRING,
    AttributeProto.FLOATS, AttributeProto.INTS, AttributeProto.STRINGS,
))  # fmt: skip


class Operation:
    """What a NodeProto says, under the same names: each look at a NodeProto makes its text anew.

    Attributes:
        proto: The node itself.
        bodies: The graphs that the node holds, with the attributes' names.
        tensors: The tensors among its attributes.
        label: What messages call it, once that has been asked.
    """

    def __init__(self, proto: NodeProto) -> None:
        self.proto = proto
        self.name: str = proto.name
        self.op_type: str = proto.op_type
        self.domain: str = proto.domain
        self.input: list[str] = list(proto.input)
        self.output: list[str] = list(proto.output)
        self.attribute: list[AttributeProto] = list(proto.attribute)
        self.bodies: list[tuple[str, GraphProto]] = []
        self.tensors: list[TensorProto] = []
        self.label: str | None = None
        for attribute in self.attribute:
            kind = attribute.type
            if kind in PLAIN:
                continue  # ONNX's checker refuses values of another type than the declared one
            if kind == AttributeProto.TENSOR:
                self.tensors.append(attribute.t)
            elif kind == AttributeProto.GRAPH:
                self.bodies.append((attribute.name, attribute.g))
            else:
                if attribute.HasField("t"):
                    self.tensors.append(attribute.t)
                if attribute.HasField("g"):
                    self.bodies.append((attribute.name, attribute.g))
                self.tensors.extend(attribute.tensors)
                self.bodies.extend((attribute.name, inner) for inner in attribute.graphs)

    @property
    def texts(self) -> list[object]:
        """Everything that must be text; protocol buffers give bytes for what is not UTF-8."""
        found: list[object] = [self.name, self.op_type, self.domain, *self.input, *self.output]
        for attribute in self.attribute:
            found.append(attribute.name)
            found.append(attribute.ref_attr_name)
        return found

    @cached_property
    def plain(self) -> dict[str, Any]:
        """The attributes that are integers, lists of them, or text, by name."""
        return {attribute.name: _plain(attribute) for attribute in self.attribute}


def _plain(attribute: AttributeProto) -> Any:
    if attribute.type == AttributeProto.INTS:
        return list(attribute.ints)
    return attribute.s if attribute.type == AttributeProto.STRING else attribute.i
