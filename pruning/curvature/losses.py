"""Losses as second-order theory needs them: per sample, with a square root of the output Hessian.

The objective is always L(w) = 1/N sum_n l(f(x_n; w), y_n). For each l there is a matrix S(z) with
S S' = d2 l / dz dz', in closed form, so that no factorisation of the output Hessian is needed and
the Gauss-Newton matrix is G = 1/N sum_n J_n' S_n S_n' J_n.
"""

from typing import Protocol

import torch
from torch import Tensor, nn

from pruning.errors import SecateurError


class Loss(Protocol):
    """A loss of one sample's output z (without batch dimension) and target y."""

    name: str

    def check(self, outputs: Tensor, target: Tensor | None) -> None:
        """Refuse outputs and targets that do not fit together, both with batch dimension."""

    def samples(self, outputs: Tensor, target: Tensor) -> Tensor:
        """The loss of each sample of a batch, shape [N]."""

    def factor(self, output: Tensor) -> Tensor:
        """S(z) of one sample, shape [numel(z), columns]."""

    def project(self, outputs: Tensor, tangents: Tensor) -> Tensor:
        """S(z)' v for each sample of a batch, without forming S; shape [N, columns]."""


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
                hint="Use objective {loss: mse}, or a model that puts out one score a class.",
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

    def factor(self, output: Tensor) -> Tensor:
        """diag(sqrt p) - p sqrt(p)', shape [C, C]."""
        p = output.softmax(-1)
        return torch.diag_embed(p.sqrt()) - torch.outer(p, p.sqrt())

    def project(self, outputs: Tensor, tangents: Tensor) -> Tensor:
        """sqrt(p) (v - p'v), shape [N, C]."""
        p = outputs.softmax(-1)
        return p.sqrt() * (tangents - (p * tangents).sum(-1, keepdim=True))


class MeanSquaredError:
    """Mean over a sample's D outputs of the squared error: l = 1/D sum_d (z_d - y_d)^2.

    The same constant as torch's `mse_loss` (no factor 1/2), so the output Hessian is 2/D I.
    """

    name = "mse"

    def check(self, outputs: Tensor, target: Tensor | None) -> None:
        """Real-valued targets of the outputs' shape.

        Raises:
            SecateurError: `labels_missing` or `target_invalid`.
        """
        target = required(target, self)
        if target.shape != outputs.shape or not target.is_floating_point():
            raise SecateurError(
                "target_invalid",
                f"mse needs real-valued targets of the outputs' shape {list(outputs.shape)}; "
                f"target has dtype {target.dtype} and shape {list(target.shape)}.",
                where="target",
                hint="Give a float array of the outputs' shape, or use {loss: cross_entropy}.",
            )

    def samples(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Mean squared error of each sample, shape [N]."""
        return _rows(outputs - target.to(outputs.dtype)).square().mean(1)

    def factor(self, output: Tensor) -> Tensor:
        """sqrt(2/D) I, shape [D, D]."""
        size = output.numel()
        return torch.eye(size, dtype=output.dtype, device=output.device) * (2.0 / size) ** 0.5

    def project(self, outputs: Tensor, tangents: Tensor) -> Tensor:
        """sqrt(2/D) v, shape [N, D]."""
        flat = _rows(tangents)
        return flat * (2.0 / flat.shape[1]) ** 0.5


def _rows(values: Tensor) -> Tensor:
    """One row a sample, also where a sample is a single number and values are [N]."""
    return values.reshape(len(values), -1)


LOSSES: dict[str, Loss] = {loss.name: loss for loss in (CrossEntropy(), MeanSquaredError())}
"""By the name that `objective.loss` uses."""


def required(target: Tensor | None, loss: Loss) -> Tensor:
    """The target, which may not be missing.

    Raises:
        SecateurError: `labels_missing`.
    """
    if target is None:
        raise SecateurError(
            "labels_missing",
            f"The loss {loss.name} needs labels, and the data hold none.",
            where="target",
            hint="Add an array named target to the data.",
        )
    return target
