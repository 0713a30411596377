"""Integers that remember the node of a traced graph that they came from."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pruning.formats.architecture.trace import Tracer


class Size(int):
    """A size; sums, products and quotients of sizes are sizes again, all else is a plain number."""

    node: str
    tracer: "Tracer"

    def __new__(cls, value: int, node: str, tracer: "Tracer") -> "Size":
        """A size that a node gives."""
        size = super().__new__(cls, value)
        size.node, size.tracer = node, tracer
        return size

    def _with(self, other: Any, target: str, turned: bool = False) -> Any:
        if type(other) not in (int, Size):
            return NotImplemented
        first, second = (other, self) if turned else (self, other)
        a, b = int(first), int(second)
        values = {"add": a + b, "sub": a - b, "mul": a * b}
        if target in values:
            value = values[target]
        else:
            value = a // b if target == "floor_divide" else a % b
        return self.tracer.size(value, target, {"input": first, "other": second})

    def __add__(self, other: Any) -> Any:
        return self._with(other, "add")

    def __radd__(self, other: Any) -> Any:
        return self._with(other, "add", True)

    def __sub__(self, other: Any) -> Any:
        return self._with(other, "sub")

    def __rsub__(self, other: Any) -> Any:
        return self._with(other, "sub", True)

    def __mul__(self, other: Any) -> Any:
        return self._with(other, "mul")

    def __rmul__(self, other: Any) -> Any:
        return self._with(other, "mul", True)

    def __floordiv__(self, other: Any) -> Any:
        return self._with(other, "floor_divide")

    def __rfloordiv__(self, other: Any) -> Any:
        return self._with(other, "floor_divide", True)

    def __mod__(self, other: Any) -> Any:
        return self._with(other, "remainder")

    def __rmod__(self, other: Any) -> Any:
        return self._with(other, "remainder", True)

    def __neg__(self) -> Any:
        return self.tracer.size(-int(self), "neg", {"input": self})
