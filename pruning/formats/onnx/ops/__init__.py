"""One file a family of operators; together they are the list of operators that are read.

To add one, write its builder (node and Builder to steps) in the file of its family and enter it
in that file's `OPERATORS`.
"""

from collections.abc import Callable

from pruning.formats.onnx.builder import Builder, Node
from pruning.formats.onnx.ops import (
    activations,
    attention,
    constants,
    convolution,
    einsum,
    elementwise,
    learning,
    linear,
    normalization,
    norms,
    padding,
    pointwise,
    pooling,
    pools,
    ranking,
    rearrange,
    recurrent,
    reductions,
    refused,
    resize,
    sampling,
    scatter,
    selection,
    shaping,
    spectral,
    standardize,
    transposed,
    trigonometry,
)

_FAMILIES = (
    activations, constants, convolution, elementwise, linear, normalization, pooling, reductions,
    selection, shaping,
    attention, einsum, learning, norms, padding, pointwise, pools, ranking, rearrange, recurrent,
    refused, resize, sampling, scatter, spectral, standardize, transposed, trigonometry,
)  # fmt: skip

OPERATORS: dict[str, Callable[[Node, Builder], None]] = {
    name: build for family in _FAMILIES for name, build in family.OPERATORS.items()
}
assert len(OPERATORS) == sum(len(family.OPERATORS) for family in _FAMILIES), "read by two families"
