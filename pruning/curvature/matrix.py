"""The shapes curvature comes in: diagonal, dense, block-diagonal, low rank. All in float64."""

from dataclasses import dataclass, replace
from typing import TypeVar

from torch import Tensor

from pruning.curvature.kronecker import Kronecker


@dataclass(frozen=True)
class Diagonal:
    """A diagonal matrix. `values`: shape [A]."""

    values: Tensor

    def diagonal(self) -> Tensor:
        """The diagonal, shape [A]."""
        return self.values


@dataclass(frozen=True)
class Dense:
    """A full symmetric matrix. `values`: shape [A, A]."""

    values: Tensor

    def diagonal(self) -> Tensor:
        """The diagonal, shape [A]."""
        return self.values.diagonal()


@dataclass(frozen=True)
class Blocks:
    """A block-diagonal symmetric matrix over A weights.

    Args:
        values: Shape [blocks, B, B]; rows and columns of padding are zero.
        index: Shape [blocks, B]; for each row of a block its weight, -1 for padding. Every weight
            stands in exactly one block.
        size: A.
    """

    values: Tensor
    index: Tensor
    size: int

    def diagonal(self) -> Tensor:
        """The diagonal, shape [A]."""
        return self.gather(self.values.diagonal(dim1=1, dim2=2))

    def scatter(self, flat: Tensor, padding: float = 0.0) -> Tensor:
        """A vector [A] as [blocks, B], with `padding` where a block has no weight."""
        return flat[self.index.clamp(min=0)].masked_fill(self.index < 0, padding)

    def gather(self, blocked: Tensor) -> Tensor:
        """The inverse of `scatter`: [blocks, B] as a vector [A]."""
        real = self.index >= 0
        flat = blocked.new_empty(self.size)
        flat[self.index[real]] = blocked[real]
        return flat


@dataclass(frozen=True)
class LowRank:
    """The symmetric matrix V'V. `rows`: V, shape [m, A], m usually far below A."""

    rows: Tensor

    def diagonal(self) -> Tensor:
        """The diagonal, shape [A]."""
        return self.rows.square().sum(0)


Matrix = Diagonal | Dense | Blocks | LowRank | Kronecker
LINEAR = (Diagonal, Dense, Blocks)
"""Layouts in which the curvature of two parts of the data is the mean of theirs."""

M = TypeVar("M", Diagonal, Dense, Blocks)


def average(first: M, second: M, share: float) -> M:
    """The mean share * first + (1 - share) * second of two matrices of one layout."""
    return replace(first, values=first.values * share + second.values * (1.0 - share))
