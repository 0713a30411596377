"""Keeps removed weights at exactly zero while an optimizer runs."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


class Masking:
    """The removed positions of some parameters.

    Setting, not multiplying: 0 * NaN is NaN and 0 * -1 is -0.0, and both would be seen in the file.

    Args:
        masks: (parameter, keep mask of its shape: True = kept), each parameter once.
    """

    def __init__(self, masks: Iterable[tuple[nn.Parameter, Tensor]]) -> None:
        self._gone = [(parameter, ~kept.to(parameter.device)) for parameter, kept in masks]

    @torch.no_grad()
    def weights(self) -> None:
        """Set removed weights to +0.0."""
        for parameter, gone in self._gone:
            parameter.masked_fill_(gone, 0.0)

    @torch.no_grad()
    def gradients(self) -> None:
        """Set the gradients of removed weights to 0."""
        for parameter, gone in self._gone:
            if parameter.grad is not None:
                parameter.grad.masked_fill_(gone, 0.0)

    @torch.no_grad()
    def moments(self, optimizer: Optimizer) -> None:
        """Set what an optimizer remembers of removed weights to 0."""
        for parameter, gone in self._gone:
            for value in optimizer.state.get(parameter, {}).values():
                if isinstance(value, Tensor) and value.shape == gone.shape:
                    value.masked_fill_(gone, 0.0)

    def step(self, optimizer: Optimizer) -> None:
        """One step of the optimizer that leaves removed weights at exactly +0.0."""
        self.gradients()
        optimizer.step()
        self.weights()
        self.moments(optimizer)
