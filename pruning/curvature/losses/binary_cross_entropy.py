"""Binary cross-entropy, one decision an output."""

import torch
from torch import Tensor, nn

from pruning.curvature.losses.loss import required
from pruning.curvature.losses.rows import normal_draw, rows
from pruning.errors import SecateurError
from pruning.meaning import alike


class BinaryCrossEntropy:
    """Mean over a sample's D outputs of the binary cross-entropy of sigmoid(z) and y in [0, 1].

    l = 1/D sum_d softplus(z_d) - y_d z_d; the output Hessian is diag(p (1 - p)) / D.
    """

    name = "bce"

    def check(self, outputs: Tensor, target: Tensor | None) -> None:
        """Targets of the outputs' shape between 0 and 1, of any type; one may be [N] or [N, 1].

        Raises:
            SecateurError: `labels_missing` or `target_invalid`.
        """
        target = required(target, self)
        if len(target) != len(outputs) or not alike(target.shape, outputs.shape):
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
        z, y = rows(outputs), rows(target.to(outputs.dtype))
        return (nn.functional.softplus(z) - y * z).mean(1)

    def factor(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """diag(sqrt(p (1 - p) / D)), shape [D, D]."""
        return torch.diag_embed(self._roots(output.reshape(1, -1))[0])

    def project(self, outputs: Tensor, tangents: Tensor, target: Tensor | None = None) -> Tensor:
        """sqrt(p (1 - p) / D) v, shape [N, D]."""
        return self._roots(rows(outputs)) * rows(tangents)

    def diagonal(self, outputs: Tensor, target: Tensor) -> Tensor:
        """The diagonal p (1 - p) / D, in the shape of the outputs."""
        return self._roots(rows(outputs)).square().view(outputs.shape)

    def ranks(self, outputs: Tensor, target: Tensor) -> Tensor:
        """D, shape [N]."""
        return torch.full((len(target),), outputs[0].numel())

    def draw(
        self, outputs: Tensor, target: Tensor | None, samples: int, generator: torch.Generator
    ) -> Tensor:
        """Normal with variance p (1 - p) / D, shape [m, N, ...]."""
        roots = self._roots(rows(outputs))
        return normal_draw(roots, samples, generator).view(samples, *outputs.shape)

    def correct(self, outputs: Tensor, target: Tensor) -> Tensor:
        """The share of outputs on their target's side of 1/2, shape [N]."""
        right = (rows(outputs) > 0) == (rows(target) > 0.5)
        return right.to(outputs.dtype).mean(1)

    def guessed(self, target: Tensor) -> float:
        """Of each output the more frequent side of 1/2, on average."""
        share = (rows(target) > 0.5).double().mean(0)
        return float(torch.maximum(share, 1.0 - share).mean())

    @staticmethod
    def _roots(z: Tensor) -> Tensor:
        # Either factor by its own sigmoid: 1 - p loses all digits for large z.
        return (z.sigmoid() * (-z).sigmoid() / z.shape[1]).sqrt()
