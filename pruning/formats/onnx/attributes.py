"""A node's attributes, of which every one must be asked for: a forgotten one is an error."""

from typing import Any

import numpy as np
from onnx import AttributeProto, numpy_helper

from pruning.errors import SecateurError
from pruning.formats.onnx.operation import Operation

_KINDS = {
    "int": AttributeProto.INT,
    "float": AttributeProto.FLOAT,
    "string": AttributeProto.STRING,
    "ints": AttributeProto.INTS,
    "floats": AttributeProto.FLOATS,
    "tensor": AttributeProto.TENSOR,
}


class Attributes:
    """Typed access to the attributes of one node; `unread` names those nobody asked for."""

    def __init__(self, node: Operation, label: str) -> None:
        self._label = label
        self._left = {attribute.name: attribute for attribute in node.attribute}

    def int(self, name: str, default: Any = None) -> Any:
        """An integer attribute."""
        value = self._take(name, "int")
        return default if value is None else int(value.i)

    def float(self, name: str, default: Any = None) -> Any:
        """A real attribute."""
        value = self._take(name, "float")
        return default if value is None else float(value.f)

    def string(self, name: str, default: str | None = None) -> Any:
        """A text attribute."""
        value = self._take(name, "string")
        return default if value is None else value.s.decode("utf-8", "replace")

    def ints(self, name: str, default: Any = None) -> Any:
        """A list of integers."""
        value = self._take(name, "ints")
        return default if value is None else [int(v) for v in value.ints]

    def tensor(self, name: str) -> np.ndarray | None:
        """A tensor attribute as an array."""
        value = self._take(name, "tensor")
        return None if value is None else numpy_helper.to_array(value.t)

    def unread(self) -> list[str]:
        """Attributes that were not asked for."""
        return sorted(self._left)

    def _take(self, name: str, kind: str) -> AttributeProto | None:
        value = self._left.pop(name, None)
        if value is None:
            return None
        if value.ref_attr_name or value.type != _KINDS[kind]:
            raise SecateurError(
                "operator_attribute_unsupported",
                f"Attribute {name} is not a plain {kind}.",
                where=self._label,
            )
        return value
