"""One layer as a matrix problem: what every layer-wise solver is given, and what it answers.

The output error of a layer over its inputs is tr((W - A) H (W - A)'), summed over groups, where H
is the mean of u u' over the columns u of its unfolded inputs and A the weights aimed at; so the
layer is pruned best by the W that minimises it with exactly so many zeros, in the pattern's places.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Pattern:
    """Which entries of a matrix go together: groups of `rows` x `columns` neighbours.

    Args:
        kind: `unstructured` (single weights), `nm` (`keep` of every `columns` neighbours of a row
            stay), or `block` (blocks of `rows` x `columns` that stay or go as a whole).
        rows: Height of a group; 1 unless `block`.
        columns: Width of a group; divides the number of columns of the matrix.
        keep: Of an `nm` group; 0 otherwise.
    """

    kind: str = "unstructured"
    rows: int = 1
    columns: int = 1
    keep: int = 0


@dataclass(frozen=True)
class LayerProblem:
    """A layer's weights, what they are aimed at, and the curvature of its output error.

    Args:
        aim: A, the unconstrained minimiser, shape [g, o, d] (groups, outputs and inputs of each).
        gram: H, the mean of u u' over samples and positions, undamped, shape [g, d, d], of the
            aim's dtype. Rows and columns of dead inputs are zero.
        damping: In units of the mean diagonal of each group's H.
        count: How many of the g * o * d weights are zero at the end, `gone` included; a multiple
            of the pattern's group where the pattern is `block`, implied by it where it is `nm`.
        pattern: Columns lie so that its groups are neighbours.
        gone: True for weights that were removed before and stay so, shape [g, o, d].
    """

    aim: Tensor
    gram: Tensor
    damping: float
    count: int
    pattern: Pattern = Pattern()
    gone: Tensor | None = None

    def damped(self) -> Tensor:
        """H + damping * mean(diag H) I, with ones for the diagonal of a group of zeros."""
        scale = self.gram.diagonal(dim1=1, dim2=2).mean(1)
        added = torch.where(scale > 0, scale * self.damping, torch.ones_like(scale))
        damped = self.gram.clone()
        damped.diagonal(dim1=1, dim2=2).add_(added[:, None])
        return damped

    def error(self, weight: Tensor) -> float:
        """tr((W - A) H (W - A)') with the undamped H, in float64."""
        change = (weight - self.aim).double()
        return float(((change @ self.gram.double()) * change).sum())

    def size(self) -> float:
        """tr(A H A'), the energy of the outputs aimed at."""
        return self.error(torch.zeros_like(self.aim))


@dataclass(frozen=True)
class LayerSolution:
    """The pruned weights, exactly zero where `removed`, both of shape [g, o, d]."""

    weight: Tensor
    removed: Tensor
