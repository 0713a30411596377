"""Cross-entropy of class scores."""

import torch
from torch import Tensor, nn

from pruning.curvature.losses.loss import required
from pruning.curvature.losses.rows import (
    softmax_diagonal,
    softmax_draw,
    softmax_factor,
    softmax_project,
)
from pruning.errors import SecateurError


class CrossEntropy:
    """Cross-entropy of softmax(z) and an integer label: l = logsumexp(z) - z_y, natural logarithm.

    The output Hessian is diag(p) - p p' with p = softmax(z), and S = diag(sqrt p) - p sqrt(p)'.
    """

    name = "cross_entropy"

    def check(self, outputs: Tensor, target: Tensor | None) -> None:
        """Outputs [N, C], labels [N] of an integer type in 0 ... C - 1.

        Raises:
            SecateurError: `labels_missing` or `target_invalid`.
        """
        target = required(target, self)
        if outputs.ndim != 2 or outputs.shape[1] < 2:
            raise SecateurError(
                "target_invalid",
                "cross_entropy needs outputs of shape [samples, classes] with 2 classes or more; "
                f"the model's have shape {list(outputs.shape)}.",
                where="spec.objective.loss",
                hint="Use a model that puts out one score a class; for one logit and labels 0 and "
                "1 set objective.loss to bce, for real values to mse.",
            )
        classes = outputs.shape[1]
        if target.shape != outputs.shape[:1] or target.is_floating_point():
            raise SecateurError(
                "target_invalid",
                f"cross_entropy needs one integer label a sample; target has dtype {target.dtype} "
                f"and shape {list(target.shape)}.",
                where="target",
                hint="Give class numbers of an integer type, one a sample.",
            )
        labels = target.long()  # torch has no min of the wider unsigned types
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= classes:
            raise SecateurError(
                "target_invalid",
                f"Labels lie in {low} ... {high}; the model puts out {classes} classes.",
                where="target",
                hint=f"Labels must lie in 0 ... {classes - 1}.",
            )

    def samples(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy of each sample, shape [N]."""
        return nn.functional.cross_entropy(outputs, target.long(), reduction="none")

    def factor(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """diag(sqrt p) - p sqrt(p)', shape [C, C]."""
        return softmax_factor(output[None])

    def project(self, outputs: Tensor, tangents: Tensor, target: Tensor | None = None) -> Tensor:
        """sqrt(p) (v - p'v), shape [N, C]."""
        return softmax_project(outputs, tangents)

    def diagonal(self, outputs: Tensor, target: Tensor) -> Tensor:
        """The diagonal p (1 - p), shape [N, C]."""
        return softmax_diagonal(outputs)

    def ranks(self, outputs: Tensor, target: Tensor) -> Tensor:
        """C - 1: a constant added to all scores changes nothing; shape [N]."""
        return torch.full((len(target),), outputs.shape[1] - 1)

    def draw(
        self, outputs: Tensor, target: Tensor | None, samples: int, generator: torch.Generator
    ) -> Tensor:
        """Gradients p - e_y at labels that the model draws itself, shape [m, N, C]."""
        return softmax_draw(outputs, samples, generator)

    def correct(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Whether the label's output is the largest (the first of equal ones), shape [N]."""
        return (outputs.argmax(1) == target.long()).to(outputs.dtype)

    def guessed(self, target: Tensor) -> float:
        """The share of the most frequent label."""
        return float(target.long().bincount().max()) / len(target)
