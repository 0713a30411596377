"""One file a family of operators; together they are the list of operators that are read.

To add one, write its builder (node and Builder to steps) in the file of its family and enter it
in that file's `OPERATORS`.
"""

from collections.abc import Callable

from pruning.formats.onnx.builder import Builder, Node
from pruning.formats.onnx.ops import (
    activations,
    constants,
    convolution,
    elementwise,
    linear,
    normalization,
    pooling,
    reductions,
    selection,
    shaping,
)

_FAMILIES = (
    activations, constants, convolution, elementwise, linear,
    normalization, pooling, reductions, selection, shaping,
)  # fmt: skip

OPERATORS: dict[str, Callable[[Node, Builder], None]] = {
    name: build for family in _FAMILIES for name, build in family.OPERATORS.items()
}
