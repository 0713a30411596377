"""Next-token cross-entropy over the positions that count."""

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
from pruning.errors import SecateurError

IGNORED = -100
"""The label of a position that is no data: padding, or a prompt that is not to be learned."""


class CausalLM:
    """Next-token cross-entropy: the outputs at position t are scored with the label at t + 1.

    Outputs [N, T, V], labels [N, T] aligned with the inputs (the shift happens here). A sample's
    loss is the mean over those of its labels 1 ... T - 1 that are not `IGNORED`; so padding more
    changes nothing, and every sequence weighs the same however long it is.
    """

    name = "causal_lm"

    def check(self, outputs: Tensor, target: Tensor | None) -> None:
        """Integer labels in 0 ... V - 1 or `IGNORED`, at least one to be predicted a sample.

        Raises:
            SecateurError: `labels_missing` or `target_invalid`.
        """
        target = required(target, self)
        if outputs.ndim != 3 or outputs.shape[1] < 2 or outputs.shape[2] < 2:
            raise SecateurError(
                "target_invalid",
                "causal_lm needs outputs of shape [samples, positions, vocabulary]; the model's "
                f"have shape {list(outputs.shape)}.",
                where="spec.objective.loss",
                hint="Use a model that puts out one score a token at every position.",
            )
        if target.shape != outputs.shape[:2] or target.is_floating_point():
            raise SecateurError(
                "target_invalid",
                f"causal_lm needs integer labels of shape {list(outputs.shape[:2])}; target has "
                f"dtype {target.dtype} and shape {list(target.shape)}.",
                where="target",
                hint=f"Give the tokens themselves, and {IGNORED} where they shall not count.",
            )
        labels = target.long()
        wrong = labels[(labels != IGNORED) & ((labels < 0) | (labels >= outputs.shape[2]))]
        if len(wrong):
            raise SecateurError(
                "target_invalid",
                f"The label {int(wrong[0])} is no token; the model knows {outputs.shape[2]}.",
                where="target",
                hint=f"Labels lie in 0 ... {outputs.shape[2] - 1}, or are {IGNORED}.",
            )
        empty = (labels[:, 1:] == IGNORED).all(1)
        if bool(empty.any()):
            raise SecateurError(
                "target_invalid",
                f"{int(empty.sum())} samples have no label to predict.",
                where="target",
                hint="Leave these samples out: every position of theirs is masked.",
            )

    def samples(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Mean cross-entropy of each sequence, shape [N]."""
        scores = outputs[:, :-1].log_softmax(-1)
        labels = target[:, 1:].long().clamp(min=0)
        picked = scores.gather(-1, labels[..., None])[..., 0]
        return -(picked * self._shares(outputs, target)).sum(1)

    def factor(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """One softmax block a position, the last one's rows zero; shape [T V, (T - 1) V]."""
        shares = self._shares(output[None], required(target, self)[None])[0]
        blocks = softmax_factor(output[:-1], shares.sqrt())
        return torch.cat([blocks, blocks.new_zeros(output.shape[1], blocks.shape[1])])

    def project(self, outputs: Tensor, tangents: Tensor, target: Tensor | None = None) -> Tensor:
        """S'v position by position, shape [N, (T - 1) V]."""
        roots = self._shares(outputs, required(target, self)).sqrt()
        return rows(softmax_project(outputs[:, :-1], tangents[:, :-1]) * roots[..., None])

    def diagonal(self, outputs: Tensor, target: Tensor) -> Tensor:
        """The diagonal p (1 - p) times the position's share, zero at the last; shape [N, T, V]."""
        known = softmax_diagonal(outputs[:, :-1]) * self._shares(outputs, target)[..., None]
        return torch.cat([known, torch.zeros_like(outputs[:, :1])], 1)

    def ranks(self, outputs: Tensor, target: Tensor) -> Tensor:
        """V - 1 for each position that counts, shape [N]."""
        return (target[:, 1:] != IGNORED).sum(1) * (outputs.shape[2] - 1)

    def draw(
        self, outputs: Tensor, target: Tensor | None, samples: int, generator: torch.Generator
    ) -> Tensor:
        """Gradients p - e_y at tokens drawn position by position, times the share's root."""
        roots = self._shares(outputs, required(target, self)).sqrt()[..., None]
        v = softmax_draw(outputs[:, :-1], samples, generator).mul_(roots)
        return torch.cat([v, v.new_zeros(samples, len(outputs), 1, outputs.shape[2])], 2)

    def correct(self, outputs: Tensor, target: Tensor) -> Tensor:
        """The share of labels that have the largest score, shape [N]."""
        right = (outputs[:, :-1].argmax(-1) == target[:, 1:].long()).to(outputs.dtype)
        return (right * self._shares(outputs, target)).sum(1)

    def guessed(self, target: Tensor) -> float:
        """The share of the most frequent token among the labels, each sample weighing the same."""
        labels, shares = target[:, 1:].long(), self._shares(target.double(), target)
        known = labels != IGNORED
        return float(labels[known].bincount(shares[known]).max()) / len(target)

    @staticmethod
    def _shares(outputs: Tensor, target: Tensor) -> Tensor:
        """What each predicted position weighs in its sample's loss, shape [N, T - 1]."""
        counts = (target[:, 1:] != IGNORED).to(outputs.dtype)
        return counts / counts.sum(1, keepdim=True).clamp(min=1.0)
