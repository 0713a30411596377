"""The pattern of a spec, as the solvers of a layer's matrix know it."""

from pruning.solvers.layer import Pattern
from pruning.spec import NM, Block, Unstructured


def layer_pattern(pattern: Unstructured | NM | Block) -> Pattern:
    """Groups of neighbours in a layer's matrix."""
    if isinstance(pattern, NM):
        return Pattern("nm", 1, pattern.m, pattern.n)
    if isinstance(pattern, Block):
        return Pattern("block", *pattern.shape)
    return Pattern()
