"""Small networks, losses and data in float64, on which every approximation is checked."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pruning.curvature.losses import LOSSES, Loss
from pruning.curvature.network import Network
from pruning.data.batches import ArrayData
from pruning.layers import FlatWeights, find_prunable
from pruning.spec import Scope

SAMPLES = 7


class TwoInputs(nn.Module):
    """Two inputs, a residual path, and a second output that the loss ignores."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.head = nn.Linear(3, 5), nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        hidden = torch.tanh(self.left(left)) + self.right(right)
        return self.head(hidden + torch.sigmoid(hidden)), hidden


class Tied(nn.Module):
    """One parameter in two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 3)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.second(torch.tanh(self.first(x)))))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))


def cnn() -> nn.Module:
    """Stride, padding, dilation, groups, depthwise, BatchNorm, pooling."""
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=2),
        nn.Conv2d(4, 4, 2, groups=4),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(4, 3),
    )


def sequence() -> nn.Module:
    return nn.Sequential(nn.Conv1d(2, 3, 3), nn.GELU(), nn.AdaptiveAvgPool1d(1), nn.Flatten())


@dataclass
class Case:
    """A network in evaluation mode with data and a loss."""

    module: nn.Module
    data: ArrayData
    loss: Loss

    @property
    def weights(self) -> FlatWeights:
        return FlatWeights(find_prunable(self.module, Scope(), None))

    @property
    def network(self) -> Network:
        return Network(self.module, self.weights)


_TABLE: dict[str, tuple[Callable[[], nn.Module], list[tuple[int, ...]], str]] = {
    "mlp-cross_entropy": (mlp, [(6,)], "cross_entropy"),
    "mlp-mse": (mlp, [(6,)], "mse"),
    "cnn-cross_entropy": (cnn, [(2, 8, 8)], "cross_entropy"),
    "cnn-mse": (cnn, [(2, 8, 8)], "mse"),
    "sequence-cross_entropy": (sequence, [(2, 6)], "cross_entropy"),
    "two-inputs-cross_entropy": (TwoInputs, [(3,), (4,)], "cross_entropy"),
    "tied-cross_entropy": (Tied, [(5,)], "cross_entropy"),
}
NAMES = list(_TABLE)


def make(name: str, samples: int = SAMPLES) -> Case:
    """The case of that name, the same every time."""
    build, shapes, loss = _TABLE[name]
    torch.manual_seed(0)
    module = build().double().eval()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2.0)
    inputs = {f"x{i}": torch.randn(samples, *s).double() for i, s in enumerate(shapes)}
    labels, values = torch.randint(3, (samples,)), torch.randn(samples, 3).double()
    return Case(module, ArrayData(inputs, values if loss == "mse" else labels), LOSSES[loss])
