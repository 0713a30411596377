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

    @property
    def rounding(self) -> float:
        """What eigenvalues and entries below can't be told from zero."""
        return float(self.scales.max()) * self.scales.numel() * torch.finfo(self.scales.dtype).eps

    def product(self, matrices: Tensor, scales: Tensor) -> Tensor:
        """The matrix of these `scales` times each of `matrices`, shape [..., o, i]."""
        turned = self.left.T @ matrices @ self.right
        return self.left @ (turned * scales) @ self.right.T

    def diagonal_of(self, scales: Tensor) -> Tensor:
        """The diagonal of the matrix of these `scales` at the active weights, shape [a]."""
        full = self.left.square() @ scales @ self.right.square().T
        return full.flatten()[self.position]

    def diagonal(self) -> Tensor:
        """The block's own diagonal at the active weights, zero where it is but rounding, [a]."""
        values = self.diagonal_of(self.scales)
        return values.masked_fill(values <= self.rounding, 0.0)

    def columns(self, position: Tensor, scales: Tensor, at: Tensor | None = None) -> Tensor:
        """Columns of the matrix of these `scales`, as rows [c, r].

        Args:
            position: Row-major positions of the columns, shape [c].
            scales: Shape [o, i].
            at: Row-major positions of the entries, shape [r]; all o i of them without it.
        """
        if at is None:
            at = torch.arange(scales.numel(), device=position.device)
        width = len(self.right)
        across, along = at // width, self.right[at % width]
        found = scales.new_empty(len(position), len(at))
        # Entry (a b, c d) is sum_jk L_aj L_cj s_jk R_bk R_dk: the sum over j serves a whole row a.
        for row in (position // width).unique().tolist():
            here = (position // width == row).nonzero()[:, 0]
            summed = (self.left * self.left[row]) @ scales
            found[here] = self.right[position[here] % width] @ (summed[across] * along).T
        return found


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
            values[block.index] = block.diagonal()
        return values
