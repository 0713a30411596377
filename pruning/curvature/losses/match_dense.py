"""Distances to the dense network's own outputs, for data without labels."""

import torch
from torch import Tensor

from pruning.curvature.losses.loss import required
from pruning.curvature.losses.rows import (
    rows,
    softmax_diagonal,
    softmax_draw,
    softmax_factor,
    softmax_project,
)
from pruning.curvature.losses.squared_error import MeanSquaredError
from pruning.meaning import too_few_scores


class MatchDense(MeanSquaredError):  # noqa: N818
    """Mean squared distance to the outputs of the dense network, which stand in for labels.

    At the dense weights the loss and every sample's gradient are zero; the Gauss-Newton matrix
    is not, and is the exact Hessian there.
    """

    name = "match_dense"


class MatchDenseKL:
    """Kullback-Leibler divergence from the dense network's softmax to the pruned one's.

    l = 1/P sum over the P positions before the last axis of sum_c q_c (log q_c - log p_c), where
    q = softmax(y) and y are the dense outputs. The output Hessian is that of cross-entropy.
    """

    name = "match_dense"

    def check(self, outputs: Tensor, target: Tensor | None) -> None:
        """Two scores or more along the last axis.

        Raises:
            SecateurError: `labels_missing` or `target_invalid`.
        """
        target = required(target, self)
        if outputs.ndim < 2 or outputs.shape[-1] < 2 or target.shape != outputs.shape:
            raise too_few_scores(outputs.shape)

    def samples(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Divergence of each sample, shape [N]."""
        dense = target.to(outputs.dtype).log_softmax(-1)
        gap = dense.exp() * (dense - outputs.log_softmax(-1))
        return rows(gap.sum(-1)).mean(1)

    def factor(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """One softmax block a position, over sqrt(P); shape [P C, P C]."""
        scores = output.reshape(-1, output.shape[-1])
        return softmax_factor(scores) * len(scores) ** -0.5

    def project(self, outputs: Tensor, tangents: Tensor, target: Tensor | None = None) -> Tensor:
        """S'v position by position, shape [N, P C]."""
        found = rows(softmax_project(outputs, tangents))
        return found * (outputs.shape[-1] / found.shape[1]) ** 0.5

    def diagonal(self, outputs: Tensor, target: Tensor) -> Tensor:
        """The diagonal p (1 - p) / P, in the shape of the outputs."""
        return softmax_diagonal(outputs) / self._positions(outputs)

    def ranks(self, outputs: Tensor, target: Tensor) -> Tensor:
        """C - 1 for each position, shape [N]."""
        rank = self._positions(outputs) * (outputs.shape[-1] - 1)
        return torch.full((len(target),), rank)

    def draw(
        self, outputs: Tensor, target: Tensor | None, samples: int, generator: torch.Generator
    ) -> Tensor:
        """(p - e_y) / sqrt(P), y drawn position by position; shape [m, N, ..., C]."""
        root = self._positions(outputs) ** -0.5
        return softmax_draw(outputs, samples, generator).mul_(root)

    @staticmethod
    def _positions(outputs: Tensor) -> int:
        return outputs[0].numel() // outputs.shape[-1]

    def correct(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Undefined.

        Raises:
            TypeError: Always.
        """
        raise TypeError(f"{self.name} knows no right and wrong")

    def guessed(self, target: Tensor) -> float:
        """Undefined, as `correct`."""
        raise TypeError(f"{self.name} knows no right and wrong")
