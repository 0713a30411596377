"""The loss and the metrics of a network on some data."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pruning.curvature.losses import Loss, required
from pruning.curvature.network import first_output
from pruning.data.batches import ArrayData
from pruning.errors import SecateurError

BATCH = 512


@dataclass(frozen=True)
class Evaluation:
    """Mean loss and metrics over `samples` samples."""

    loss: float
    metrics: dict[str, float]
    samples: int


@torch.no_grad()
def evaluate(
    module: nn.Module | None, data: ArrayData, loss: Loss, metrics: tuple[str, ...] = ()
) -> Evaluation:
    """The mean loss, each sample's loss in the network's dtype and the sum in float64.

    Args:
        module: In evaluation mode; None where the targets are its own outputs.
        data: Samples and targets.
        loss: The loss of one sample.
        metrics: Names among `METRICS`.

    Raises:
        SecateurError: `loss_non_finite`, or what `loss.check` raises.
    """
    device = None if module is None else next(module.parameters()).device
    total, sums = 0.0, dict.fromkeys(metrics, 0.0)
    for inputs, target in data.batches(BATCH, device=device):
        outputs = required(target, loss) if module is None else first_output(module(*inputs))
        loss.check(outputs, target)
        target = required(target, loss)
        total += float(loss.samples(outputs, target).double().sum())
        for name in metrics:
            sums[name] += float(METRICS[name](loss, outputs, target))
    mean = total / data.samples
    if not math.isfinite(mean):
        raise SecateurError(
            "loss_non_finite",
            f"The loss on the data is {mean}.",
            hint="Check the data's scale, and the model's outputs for overflow.",
        )
    return Evaluation(mean, {k: v / data.samples for k, v in sums.items()}, data.samples)


def accuracy(loss: Loss, outputs: Tensor, target: Tensor) -> Tensor:
    """Sum over the samples of the share of right decisions in each."""
    return loss.correct(outputs.double(), target).sum()


METRICS = {"accuracy": accuracy}
"""Sums over a batch, by name."""
