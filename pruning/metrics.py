"""The loss and the metrics of a network on some data."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from pruning.curvature.losses import Loss, required
from pruning.curvature.network import first_output
from pruning.data.batches import ArrayData
from pruning.errors import SecateurError

BATCH = 512


@dataclass(frozen=True)
class Evaluation:
    """Mean loss and metrics over `samples` samples; `each` are the metrics of every sample [N]."""

    loss: float
    metrics: dict[str, float]
    samples: int
    each: dict[str, Tensor] = field(default_factory=dict, compare=False)


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
    total = 0.0
    parts: dict[str, list[Tensor]] = {name: [] for name in metrics}
    for inputs, target in data.batches(BATCH, device=device):
        outputs = required(target, loss) if module is None else first_output(module(*inputs))
        loss.check(outputs, target)
        target = required(target, loss)
        total += float(loss.samples(outputs, target).double().sum())
        for name, part in parts.items():
            part.append(METRICS[name](loss, outputs, target).double().cpu())
    mean = total / data.samples
    if not math.isfinite(mean):
        raise SecateurError(
            "loss_non_finite",
            f"The loss on the data is {mean}.",
            hint="Check the data's scale, and the model's outputs for overflow.",
        )
    each = {name: torch.cat(part) for name, part in parts.items()}
    means = {name: float(values.mean()) for name, values in each.items()}
    return Evaluation(mean, means, data.samples, each)


def accuracy(loss: Loss, outputs: Tensor, target: Tensor) -> Tensor:
    """The share of right decisions in each sample, shape [N]."""
    return loss.correct(outputs.double(), target)


def agreement(loss: Loss, outputs: Tensor, target: Tensor) -> Tensor:
    """Where the largest output is the dense network's: the share of each sample's rows [N]."""
    same = outputs.argmax(-1) == target.argmax(-1)
    return same.double().reshape(len(outputs), -1).mean(1)


def cosine(loss: Loss, outputs: Tensor, target: Tensor) -> Tensor:
    """Cosine of each sample's outputs, flattened, with the dense network's, shape [N]."""
    flat, dense = outputs.double().flatten(1), target.double().flatten(1)
    return torch.cosine_similarity(flat, dense, dim=1)


METRICS = {"accuracy": accuracy, "agreement": agreement, "cosine": cosine}
"""Values of the samples of a batch, by name; the metric is their mean."""
