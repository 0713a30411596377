"""One node as the operators' builders see it."""

from pruning.errors import SecateurError
from pruning.formats.onnx.attributes import Attributes
from pruning.formats.onnx.graph import label
from pruning.formats.onnx.operation import Operation


class Node:
    """One node as a builder sees it: padded inputs, outputs that are read, typed attributes."""

    def __init__(self, proto: Operation, uses: dict[str, int]) -> None:
        self.proto = proto
        self.operator = proto.op_type
        self.label = label(proto)
        self.inputs = [name or None for name in proto.input]
        self.outputs = proto.output
        self.attributes = Attributes(proto, self.label)
        self._uses = uses

    def input(self, index: int) -> str | None:
        """The value's name, or None where the optional input is left out."""
        return self.inputs[index] if index < len(self.inputs) else None

    def one_output(self) -> str:
        """The first output.

        Raises:
            SecateurError: `operator_attribute_unsupported` where another output is read.
        """
        if any(self._uses.get(name) for name in self.outputs[1:] if name):
            raise self.unsupported("more than its first output is used")
        return self.outputs[0]

    def unsupported(self, what: str, hint: str | None = None) -> SecateurError:
        """The error for a use of the operator that is not read."""
        return SecateurError(
            "operator_attribute_unsupported",
            f"{self.operator}: {what}, which is not read.",
            where=self.label,
            hint=hint,
        )

    def invalid(self, what: str) -> SecateurError:
        """The error for a node that makes no sense."""
        return SecateurError("model_invalid", f"{self.operator}: {what}.", where=self.label)
