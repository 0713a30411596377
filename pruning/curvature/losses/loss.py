"""What every loss can do."""

from typing import Protocol

import torch
from torch import Tensor

from pruning.errors import SecateurError


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

    def diagonal(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Diagonals of S S', the Hessian of each sample's loss, in the shape of the outputs."""

    def ranks(self, outputs: Tensor, target: Tensor) -> Tensor:
        """The rank of S of each sample, whatever its outputs are; shape [N], int64."""

    def draw(
        self, outputs: Tensor, target: Tensor | None, samples: int, generator: torch.Generator
    ) -> Tensor:
        """Independent v with mean zero and E[v v'] = S S', without forming S.

        Args:
            outputs: Shape [N, ...].
            target: Which positions count, for the losses that leave some out.
            samples: Draws for each sample, m.
            generator: Where the draws come from, on the CPU whatever the device.

        Returns:
            Shape [m, N, ...], in the outputs' dtype.
        """

    def correct(self, outputs: Tensor, target: Tensor) -> Tensor:
        """The share of right decisions in each sample, shape [N]; not every loss has one."""

    def guessed(self, target: Tensor) -> float:
        """The accuracy of the best answer that is the same for all samples, where there is one."""


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
