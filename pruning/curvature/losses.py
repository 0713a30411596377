"""Losses as second-order theory needs them: per sample, with a square root of the output Hessian.

The objective is always L(w) = 1/N sum_n l(f(x_n; w), y_n). For each l there is a matrix S(z, y)
with S S' = d2 l / dz dz', in closed form, so that no factorisation of the output Hessian is needed
and the Gauss-Newton matrix is G = 1/N sum_n J_n' S_n S_n' J_n. S depends on the target only through
the positions that it leaves out.
"""

from typing import Protocol

import torch
from torch import Tensor, nn

from pruning.errors import SecateurError
from pruning.spec import Objective


class Loss(Protocol):
    """A loss of one sample's output z (without batch dimension) and target y."""

    name: str

    def check(self, outputs: Tensor, target: Tensor | None) -> None:
        """Refuse outputs and targets that do not fit together, both with batch dimension."""

    def samples(self, outputs: Tensor, target: Tensor) -> Tensor:
        """The loss of each sample of a batch, shape [N]."""

    def factor(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """S(z, y) of one sample, shape [numel(z), columns]; rows in row-major order of z."""

    def project(self, outputs: Tensor, tangents: Tensor, target: Tensor | None = None) -> Tensor:
        """S(z, y)' v for each sample of a batch, without forming S; shape [N, columns]."""

    def correct(self, outputs: Tensor, target: Tensor) -> Tensor:
        """The share of right decisions in each sample, shape [N]; not every loss has one."""


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

    def factor(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """diag(sqrt p) - p sqrt(p)', shape [C, C]."""
        return _softmax_factor(output[None])

    def project(self, outputs: Tensor, tangents: Tensor, target: Tensor | None = None) -> Tensor:
        """sqrt(p) (v - p'v), shape [N, C]."""
        return _softmax_project(outputs, tangents)

    def correct(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Whether the label's output is the largest (the first of equal ones), shape [N]."""
        return (outputs.argmax(1) == target.long()).to(outputs.dtype)


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

    def factor(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """sqrt(2/D) I, shape [D, D]."""
        size = output.numel()
        return torch.eye(size, dtype=output.dtype, device=output.device) * (2.0 / size) ** 0.5

    def project(self, outputs: Tensor, tangents: Tensor, target: Tensor | None = None) -> Tensor:
        """sqrt(2/D) v, shape [N, D]."""
        flat = _rows(tangents)
        return flat * (2.0 / flat.shape[1]) ** 0.5

    def correct(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Undefined.

        Raises:
            TypeError: Always.
        """
        raise TypeError(f"{self.name} knows no right and wrong")


class BinaryCrossEntropy:
    """Mean over a sample's D outputs of the binary cross-entropy of sigmoid(z) and y in [0, 1].

    l = 1/D sum_d softplus(z_d) - y_d z_d; the output Hessian is diag(p (1 - p)) / D.
    """

    name = "bce"

    def check(self, outputs: Tensor, target: Tensor | None) -> None:
        """Targets of the outputs' shape between 0 and 1, of any type.

        Raises:
            SecateurError: `labels_missing` or `target_invalid`.
        """
        target = required(target, self)
        if target.shape != outputs.shape:
            raise SecateurError(
                "target_invalid",
                f"bce needs one target an output, shape {list(outputs.shape)}; target has shape "
                f"{list(target.shape)}.",
                where="target",
                hint="Give 0, 1 or a probability for each output.",
            )
        low, high = float(target.double().min()), float(target.double().max())
        if low < 0.0 or high > 1.0:
            raise SecateurError(
                "target_invalid",
                f"bce needs targets between 0 and 1; these lie in {low:g} ... {high:g}.",
                where="target",
                hint="Give 0, 1 or a probability for each output.",
            )

    def samples(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Binary cross-entropy of each sample, shape [N]."""
        z, y = _rows(outputs), _rows(target.to(outputs.dtype))
        return (nn.functional.softplus(z) - y * z).mean(1)

    def factor(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """diag(sqrt(p (1 - p) / D)), shape [D, D]."""
        return torch.diag_embed(self._roots(output.reshape(1, -1))[0])

    def project(self, outputs: Tensor, tangents: Tensor, target: Tensor | None = None) -> Tensor:
        """sqrt(p (1 - p) / D) v, shape [N, D]."""
        return self._roots(_rows(outputs)) * _rows(tangents)

    def correct(self, outputs: Tensor, target: Tensor) -> Tensor:
        """The share of outputs on their target's side of 1/2, shape [N]."""
        right = (_rows(outputs) > 0) == (_rows(target) > 0.5)
        return right.to(outputs.dtype).mean(1)

    @staticmethod
    def _roots(z: Tensor) -> Tensor:
        # Either factor by its own sigmoid: 1 - p loses all digits for large z.
        return (z.sigmoid() * (-z).sigmoid() / z.shape[1]).sqrt()


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
        blocks = _softmax_factor(output[:-1], shares.sqrt())
        return torch.cat([blocks, blocks.new_zeros(output.shape[1], blocks.shape[1])])

    def project(self, outputs: Tensor, tangents: Tensor, target: Tensor | None = None) -> Tensor:
        """S'v position by position, shape [N, (T - 1) V]."""
        roots = self._shares(outputs, required(target, self)).sqrt()
        return _rows(_softmax_project(outputs[:, :-1], tangents[:, :-1]) * roots[..., None])

    def correct(self, outputs: Tensor, target: Tensor) -> Tensor:
        """The share of labels that have the largest score, shape [N]."""
        right = (outputs[:, :-1].argmax(-1) == target[:, 1:].long()).to(outputs.dtype)
        return (right * self._shares(outputs, target)).sum(1)

    @staticmethod
    def _shares(outputs: Tensor, target: Tensor) -> Tensor:
        """What each predicted position weighs in its sample's loss, shape [N, T - 1]."""
        counts = (target[:, 1:] != IGNORED).to(outputs.dtype)
        return counts / counts.sum(1, keepdim=True).clamp(min=1.0)


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
            raise SecateurError(
                "target_invalid",
                "The distance kl needs two scores or more along the last axis of the outputs; the "
                f"model's have shape {list(outputs.shape)}.",
                where="spec.objective.distance",
                hint="Use objective {loss: match_dense, distance: squared}.",
            )

    def samples(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Divergence of each sample, shape [N]."""
        dense = target.to(outputs.dtype).log_softmax(-1)
        gap = dense.exp() * (dense - outputs.log_softmax(-1))
        return _rows(gap.sum(-1)).mean(1)

    def factor(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """One softmax block a position, over sqrt(P); shape [P C, P C]."""
        scores = output.reshape(-1, output.shape[-1])
        return _softmax_factor(scores) * len(scores) ** -0.5

    def project(self, outputs: Tensor, tangents: Tensor, target: Tensor | None = None) -> Tensor:
        """S'v position by position, shape [N, P C]."""
        rows = _rows(_softmax_project(outputs, tangents))
        return rows * (outputs.shape[-1] / rows.shape[1]) ** 0.5

    def correct(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Undefined.

        Raises:
            TypeError: Always.
        """
        raise TypeError(f"{self.name} knows no right and wrong")


def _rows(values: Tensor) -> Tensor:
    """One row a sample, also where a sample is a single number and values are [N]."""
    return values.reshape(len(values), -1)


def _softmax_factor(scores: Tensor, scale: Tensor | None = None) -> Tensor:
    """Blocks scale (diag(sqrt p) - p sqrt(p)') along a diagonal; scores [P, C] -> [P C, P C]."""
    p = scores.softmax(-1)
    blocks = torch.diag_embed(p.sqrt()) - p[:, :, None] * p.sqrt()[:, None, :]
    if scale is not None:
        blocks = blocks * scale[:, None, None]
    if len(blocks) == 1:
        return blocks[0]
    spread = torch.eye(len(blocks), dtype=blocks.dtype, device=blocks.device)
    return (spread[:, None, :, None] * blocks[:, :, None, :]).reshape(scores.numel(), -1)


def _softmax_project(scores: Tensor, tangents: Tensor) -> Tensor:
    p = scores.softmax(-1)
    return p.sqrt() * (tangents - (p * tangents).sum(-1, keepdim=True))


LOSSES: dict[str, Loss] = {
    loss.name: loss
    for loss in (
        CrossEntropy(),
        MeanSquaredError(),
        BinaryCrossEntropy(),
        CausalLM(),
        MatchDense(),
    )
}
"""By the name that `objective.loss` uses; `match_dense` with its squared distance."""


def loss_of(objective: Objective) -> Loss:
    """The loss that an objective describes."""
    if objective.loss == "match_dense" and objective.distance == "kl":
        return MatchDenseKL()
    return LOSSES[objective.loss]


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
