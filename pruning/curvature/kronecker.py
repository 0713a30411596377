"""Block-diagonal curvature whose blocks are Kronecker-factored in their eigenbasis."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class KroneckerBlock:
    """(U kron V) diag(s) (U kron V)' over the weight [o, i] of one layer, or one of its groups.

    Args:
        left: U, orthogonal, shape [o, o].
        right: V, orthogonal, shape [i, i].
        scales: s, shape [o, i]; an outer product for KFAC, free for EKFAC.
        position: Which of the o i weights, row-major, are active, ascending, shape [a].
        index: Where these stand among all active weights, shape [a].
    """

    left: Tensor
    right: Tensor
    scales: Tensor
    position: Tensor
    index: Tensor

    @property
    def whole(self) -> bool:
        """Whether every weight of the block is active."""
        return len(self.position) == self.scales.numel()

    def product(self, matrices: Tensor, scales: Tensor) -> Tensor:
        """The matrix of these `scales` times each of `matrices`, shape [..., o, i]."""
        turned = self.left.T @ matrices @ self.right
        return self.left @ (turned * scales) @ self.right.T

    def diagonal_of(self, scales: Tensor) -> Tensor:
        """The diagonal of the matrix of these `scales` at the active weights, shape [a]."""
        full = self.left.square() @ scales @ self.right.square().T
        return full.flatten()[self.position]

    def columns(self, position: Tensor, scales: Tensor) -> Tensor:
        """Columns of the matrix of these `scales` at row-major positions [c], as rows [c, o i]."""
        row, column = position // len(self.right), position % len(self.right)
        # A unit matrix turned into the eigenbasis is an outer product.
        turned = self.left[row][:, :, None] * self.right[column][:, None, :]
        return (self.left @ (turned * scales) @ self.right.T).flatten(1)


@dataclass(frozen=True)
class Kronecker:
    """Kronecker-factored blocks, one a layer or group, over A weights.

    Args:
        blocks: Every active weight stands in exactly one.
        size: A.
    """

    blocks: tuple[KroneckerBlock, ...]
    size: int

    def diagonal(self) -> Tensor:
        """The diagonal, shape [A]."""
        values = torch.zeros(self.size, dtype=torch.float64, device=self.blocks[0].left.device)
        for block in self.blocks:
            values[block.index] = block.diagonal_of(block.scales)
        return values
