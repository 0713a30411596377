"""What a training minimises: the loss of the labels, or what a teacher adds to it."""

from collections.abc import Callable
from contextlib import AbstractContextManager

from torch import Tensor, nn

from pruning.curvature.losses import Loss, required
from pruning.curvature.network import first_output
from pruning.recovery.precision import full

Autocast = Callable[[], AbstractContextManager[object]]


class Objective:
    """The mean loss over the samples of a part of a batch.

    Args:
        loss: Of one sample.
    """

    def __init__(self, loss: Loss) -> None:
        self.loss = loss

    def value(
        self,
        module: nn.Module,
        inputs: tuple[Tensor, ...],
        target: Tensor | None,
        autocast: Autocast,
        *,
        check: bool,
    ) -> Tensor:
        """A number to be differentiated; over parts of a batch it averages by their samples.

        Args:
            module: What is trained.
            inputs: Of the part.
            target: Of the part.
            autocast: Around the forward pass; losses are taken outside.
            check: Whether outputs and target are looked at, which a GPU has to wait for.
        """
        with autocast():
            outputs = first_output(module(*inputs))
        outputs = full(outputs)
        if check:
            self.loss.check(outputs, target)
        return self.of(outputs, required(target, self.loss), inputs, autocast)

    def of(
        self, outputs: Tensor, target: Tensor, inputs: tuple[Tensor, ...], autocast: Autocast
    ) -> Tensor:
        """The same of outputs that are known."""
        return self.loss.samples(outputs, target).mean()
