"""Small networks, losses and data in float64, on which every approximation is checked."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pruning.curvature.losses import IGNORED, LOSSES, Loss, MatchDenseKL
from pruning.curvature.network import Network
from pruning.data.batches import ArrayData
from pruning.layers import FlatWeights, find_prunable
from pruning.spec import Scope
from tests.oracle import networks

SAMPLES = 7


@dataclass
class Case:
    """A network in evaluation mode with data and a loss."""

    module: nn.Module
    data: ArrayData
    loss: Loss

    @property
    def weights(self) -> FlatWeights:
        return FlatWeights(find_prunable(self.module, Scope()))

    @property
    def network(self) -> Network:
        return Network(self.module, self.weights)


_TABLE: dict[str, tuple[Callable[[], nn.Module], list[tuple[int, ...]], str]] = {
    "mlp-cross_entropy": (networks.mlp, [(6,)], "cross_entropy"),
    "mlp-mse": (networks.mlp, [(6,)], "mse"),
    "mlp-bce": (networks.mlp, [(6,)], "bce"),
    "mlp-match_dense": (networks.mlp, [(6,)], "match_dense"),
    "mlp-match_dense_kl": (networks.mlp, [(6,)], "match_dense_kl"),
    "cnn-cross_entropy": (networks.cnn, [(2, 8, 8)], "cross_entropy"),
    "cnn-mse": (networks.cnn, [(2, 8, 8)], "mse"),
    "lenet-bce": (networks.lenet, [(1, 8, 8)], "bce"),
    "sequence-cross_entropy": (networks.sequence, [(2, 6)], "cross_entropy"),
    "residual-cross_entropy": (networks.Residual, [(1, 4, 4)], "cross_entropy"),
    "two-inputs-cross_entropy": (networks.TwoInputs, [(3,), (4,)], "cross_entropy"),
    "tied-cross_entropy": (networks.Tied, [(5,)], "cross_entropy"),
    "transformer-causal_lm": (networks.Transformer, [(6,)], "causal_lm"),
}
NAMES = list(_TABLE)


def make(name: str, samples: int = SAMPLES) -> Case:
    """The case of that name, the same every time."""
    build, shapes, kind = _TABLE[name]
    return of(build, shapes, kind, samples)


def of(
    build: Callable[[], nn.Module],
    shapes: list[tuple[int, ...]],
    kind: str,
    samples: int = SAMPLES,
) -> Case:
    """A network with random data, which fit the loss of that kind."""
    torch.manual_seed(0)
    module = build().double().eval()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2.0)
    inputs = {f"x{i}": torch.randn(samples, *s).double() for i, s in enumerate(shapes)}
    labels, values = torch.randint(3, (samples,)), torch.randn(samples, 3).double()
    loss: Loss = MatchDenseKL() if kind == "match_dense_kl" else LOSSES[kind]
    target: Tensor = labels if kind == "cross_entropy" else values
    if kind == "bce":
        target = torch.rand(samples, 3).double()
    if kind == "causal_lm":
        tokens = torch.randint(5, (samples, *shapes[0]))
        inputs, target = {"tokens": tokens}, tokens.clone()
        # A prompt that is not learned, and padding of different lengths.
        target[:, :2] = IGNORED
        for n in range(samples):
            target[n, len(target[n]) - n % 3 :] = IGNORED
    return Case(module, ArrayData(inputs, target), loss)
