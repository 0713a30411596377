"""What a recovery is given, and what holds the weights back while they train."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn
from torch.optim import Optimizer

from pruning.curvature.losses import Loss
from pruning.data.batches import ArrayData


@dataclass(frozen=True)
class At:
    """A step of a training: its number from 0, of how many, and the optimizer's rate in it."""

    step: int
    total: int
    rate: float


class Constraint(Protocol):
    """What is done to gradients and weights besides training."""

    def begin(self) -> None:
        """Before the first step, also of a training that goes on."""

    def gradients(self, at: At) -> None:
        """The gradients are complete; neither clipped nor stepped on."""

    def stepped(self, at: At) -> None:
        """The step is taken."""

    def end(self, optimizer: Optimizer) -> None:
        """After the last step; gradients are gone."""


class Saved(Protocol):
    """Where a training that takes long is kept between epochs."""

    def due(self) -> bool:
        """Whether enough time went by since it was last kept."""

    def find(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """What was kept."""

    def keep(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Keep tensors and JSON values in place of what was kept before."""


@dataclass(frozen=True)
class Setting:
    """A recovery's surroundings.

    Args:
        module: Changed in place; in evaluation mode before and after.
        data: Samples and targets.
        loss: Of one sample; its mean is minimised.
        constraint: The mask, or what draws weights towards zero.
        seed: Of this round; see `round_seed`.
        teacher: The dense network in evaluation mode, where one is needed.
        features: Layers whose outputs are drawn towards the teacher's, by their names.
        first: Epoch of the options at which training begins.
        split_seed: Of what an early stop holds out, the same in all rounds of a job, so that no
            round is judged by what another trained on; `seed` without it.
        saved: Where long trainings are kept between epochs.
        progress: Called with (steps done, steps in all).
    """

    module: nn.Module
    data: ArrayData
    loss: Loss
    constraint: Constraint
    seed: int
    teacher: nn.Module | None = None
    features: tuple[str, ...] = ()
    first: int = 0
    split_seed: int | None = None
    saved: Saved | None = None
    progress: Callable[[int, int], None] | None = None
