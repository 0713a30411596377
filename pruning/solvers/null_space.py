"""The weights that an inverse has nothing to say about: their curvature is zero, and no damping.

Once a layer or a unit is gone, what is left before and behind it has no curvature at all. Such
weights cost nothing, and no other weight can make up for them: their saliency is 0, the diagonal of
the inverse infinite, and they stay where they are. It is the limit of the damped inverse as the
damping goes to zero, which is what it is when the mean curvature, its unit, is zero. With a damping
that counts they are weights like all others.
"""

from functools import singledispatch

import torch
from torch import Tensor

from pruning.curvature.kronecker import Kronecker, KroneckerBlock
from pruning.curvature.matrix import Blocks, Dense, Diagonal, LowRank, Matrix


@singledispatch
def free(curvature: Matrix, damping: float) -> Tensor:
    """Whether a weight's row of curvature + damping I is zero, shape [A]."""
    raise TypeError(f"no null space for {type(curvature).__name__}")


@free.register
def _(curvature: Diagonal, damping: float) -> Tensor:
    return curvature.values == 0 if damping == 0 else _none(curvature)


@free.register
def _(curvature: Dense, damping: float) -> Tensor:
    # A Hessian may have a zero on the diagonal of a row that is not zero.
    return (curvature.values == 0).all(1) if damping == 0 else _none(curvature)


@free.register
def _(curvature: Blocks, damping: float) -> Tensor:
    rows = curvature.gather((curvature.values == 0).all(2))
    return rows if damping == 0 else _none(curvature)


@free.register
def _(curvature: LowRank, damping: float) -> Tensor:
    return curvature.diagonal() == 0 if damping == 0 else _none(curvature)


@free.register
def _(curvature: Kronecker, damping: float) -> Tensor:
    found = _none(curvature)
    for block in curvature.blocks:
        found[block.index] = free_of_block(block, damping)
    return found


def free_of_block(block: KroneckerBlock, damping: float) -> Tensor:
    """The same for one block, shape [a]: to the precision of its eigenvectors."""
    if damping > block.rounding:
        return torch.zeros_like(block.position, dtype=torch.bool)
    return block.diagonal() == 0


def _none(curvature: Matrix) -> Tensor:
    return torch.zeros_like(curvature.diagonal(), dtype=torch.bool)
