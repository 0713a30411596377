"""Ends a training that has stopped to get better, and keeps its best epoch."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pruning.data.batches import ArrayData
from pruning.errors import SecateurError
from pruning.spec import EarlyStop
from pruning.state import load_state, state_of


def split(data: ArrayData, share: float, seed: int) -> tuple[Tensor, ArrayData]:
    """The samples to train on, as ascending indices, and a seeded share that is held out.

    Args:
        data: The training data, of which only the held-out part is copied.
        share: Of the samples, one at least; and one at least is left.
        seed: Of the draw.

    Raises:
        SecateurError: `data_empty` for a single sample.
    """
    count = data.samples
    if count < 2:
        raise SecateurError(
            "data_empty",
            "One sample can't be split into a part to train on and a part to hold out.",
            where="spec.recovery.early_stop",
            hint="Give more training data, or leave early_stop out.",
        )
    held = min(max(1, int(share * count + 0.5)), count - 1)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return order[held:].sort().values, data.select(order[:held].sort().values)


@dataclass
class Best:
    """The epoch with the least loss on the held-out samples, the first of equals.

    Args:
        options: How long to wait.
        loss: Of the best epoch.
        epoch: Its number from 1; 0 before the first.
        waited: Epochs since then.
        tensors: The module's state_dict after it, on the CPU.
    """

    options: EarlyStop
    loss: float = float("inf")
    epoch: int = 0
    waited: int = 0
    tensors: dict[str, Tensor] = field(default_factory=dict)

    @property
    def over(self) -> bool:
        """Whether patience has run out."""
        return self.waited >= self.options.patience

    def see(self, module: nn.Module, loss: float, epoch: int) -> None:
        """Take note of an epoch's loss."""
        if not loss < self.loss:
            self.waited += 1
            return
        self.loss, self.epoch, self.waited = loss, epoch, 0
        if not self.tensors:
            self.tensors = {k: v.detach().cpu().clone() for k, v in state_of(module).items()}
            return
        for name, tensor in state_of(module).items():
            self.tensors[name].copy_(tensor)

    def restore(self, module: nn.Module) -> None:
        """Put the best epoch's weights and buffers into the module."""
        load_state(module, self.tensors)

    def values(self) -> dict[str, Any]:
        """What is no tensor, for a checkpoint."""
        return {"loss": self.loss, "epoch": self.epoch, "waited": self.waited}
