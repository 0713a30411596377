"""The loss and the metrics of a network on some data."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from pruning.curvature.losses import Loss, required
from pruning.curvature.losses.rows import rows
from pruning.curvature.network import first_output
from pruning.data.batches import ArrayData
from pruning.errors import SecateurError
from pruning.meaning import class_axis

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
    """Where the largest score is the dense network's: the share of each sample's places [N].

    Outputs [N] are one score a sample, of which the same one is always the largest.
    """
    outputs, target = (t.reshape(*t.shape, *[1] * (t.ndim < 2)) for t in (outputs, target))
    axis = class_axis(outputs.ndim)
    return rows((outputs.argmax(axis) == target.argmax(axis)).double()).mean(1)


def cosine(loss: Loss, outputs: Tensor, target: Tensor) -> Tensor:
    """Cosine of each sample's outputs, flattened, with the dense network's, shape [N].

    Outputs that are all zero have no direction: they are like others that are all zero (1), and
    unlike any that are not (0).
    """
    flat, dense = _directions(outputs), _directions(target)
    both_zero = ~(flat.any(1) | dense.any(1))
    return torch.where(both_zero, 1.0, (flat * dense).sum(1).clamp(-1.0, 1.0))


def _directions(outputs: Tensor) -> Tensor:
    """Rows of length one, or zero, in float64 [N, D]; scaled before squares can underflow."""
    flat = rows(outputs.double())
    largest = flat.abs().amax(1, keepdim=True)
    flat = flat / torch.where(largest > 0, largest, 1.0)
    return flat / torch.linalg.vector_norm(flat, dim=1, keepdim=True).clamp(min=0.5)


def fixed_agreement(dense: Tensor) -> float:
    """The best agreement of an answer that is the same for all samples.

    Args:
        dense: Outputs of the dense network, samples first, with two axes or more.
    """
    largest = rows(dense.argmax(class_axis(dense.ndim)))
    return float((largest == largest.mode(0).values).double().mean())


def fixed_cosine(dense: Tensor) -> float:
    """The best mean cosine of an output that is the same for all samples.

    The mean of the cosines with a direction d is d times the mean of the outputs' own directions,
    and so at most the length of that mean.

    Args:
        dense: Outputs of the dense network, samples first.
    """
    total = sum(_directions(part).sum(0) for part in dense.split(BATCH))
    assert isinstance(total, Tensor)
    return float(torch.linalg.vector_norm(total)) / len(dense)


FIXED = {"agreement": fixed_agreement, "cosine": fixed_cosine}
"""What a network that sees nothing of its inputs can reach, of the metrics without labels."""

METRICS = {"accuracy": accuracy, "agreement": agreement, "cosine": cosine}
"""Values of the samples of a batch, by name; the metric is their mean."""
