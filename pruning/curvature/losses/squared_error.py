"""Mean squared error."""

import torch
from torch import Tensor

from pruning.curvature.losses.loss import required
from pruning.curvature.losses.rows import normal_draw, rows
from pruning.errors import SecateurError
from pruning.meaning import alike


class MeanSquaredError:
    """Mean over a sample's D outputs of the squared error: l = 1/D sum_d (z_d - y_d)^2.

    The same constant as torch's `mse_loss` (no factor 1/2), so the output Hessian is 2/D I.
    """

    name = "mse"

    def check(self, outputs: Tensor, target: Tensor | None) -> None:
        """Real-valued targets of the outputs' shape; one number a sample may be [N] or [N, 1].

        Raises:
            SecateurError: `labels_missing` or `target_invalid`.
        """
        target = required(target, self)
        fits = len(target) == len(outputs) and alike(target.shape, outputs.shape)
        if not fits or not target.is_floating_point():
            raise SecateurError(
                "target_invalid",
                f"mse needs real-valued targets of the outputs' shape {list(outputs.shape)}; "
                f"target has dtype {target.dtype} and shape {list(target.shape)}.",
                where="target",
                hint="Give a float array of the outputs' shape, or use {loss: cross_entropy}.",
            )

    def samples(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Mean squared error of each sample, shape [N]."""
        return (rows(outputs) - rows(target.to(outputs.dtype))).square().mean(1)

    def factor(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """sqrt(2/D) I, shape [D, D]."""
        size = output.numel()
        return torch.eye(size, dtype=output.dtype, device=output.device) * (2.0 / size) ** 0.5

    def project(self, outputs: Tensor, tangents: Tensor, target: Tensor | None = None) -> Tensor:
        """sqrt(2/D) v, shape [N, D]."""
        flat = rows(tangents)
        return flat * (2.0 / flat.shape[1]) ** 0.5

    def diagonal(self, outputs: Tensor, target: Tensor) -> Tensor:
        """2/D everywhere, in the shape of the outputs."""
        return torch.full_like(outputs, 2.0 / outputs[0].numel())

    def ranks(self, outputs: Tensor, target: Tensor) -> Tensor:
        """D, shape [N]."""
        return torch.full((len(target),), outputs[0].numel())

    def draw(
        self, outputs: Tensor, target: Tensor | None, samples: int, generator: torch.Generator
    ) -> Tensor:
        """Normal with variance 2/D: gradients at targets from a Gaussian around the outputs."""
        roots = torch.full_like(rows(outputs), (2.0 / outputs[0].numel()) ** 0.5)
        return normal_draw(roots, samples, generator).view(samples, *outputs.shape)

    def correct(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Undefined.

        Raises:
            TypeError: Always.
        """
        raise TypeError(f"{self.name} knows no right and wrong")

    def guessed(self, target: Tensor) -> float:
        """Undefined, as `correct`."""
        raise TypeError(f"{self.name} knows no right and wrong")
