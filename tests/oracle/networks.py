"""Small networks of every make that the cases are drawn from."""

import torch
from torch import Tensor, nn


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


class Residual(nn.Module):
    """A block with a shortcut, BatchNorm and an in-place sum, as in ResNets."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.conv = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.head = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        out = self.conv(x)
        out += x
        return self.head(torch.tanh(out).mean((2, 3)))


class Transformer(nn.Module):
    """One causal attention block; the embedding is the output head, and the query is the key."""

    def __init__(self, vocabulary: int = 5, width: int = 4) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.key.weight = self.query.weight
        self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 6), nn.Linear(6, width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        q, k, v = self.query(x), self.key(x), self.value(x)
        scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
        later = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
        x = x + self.out(scores.masked_fill(later, float("-inf")).softmax(-1) @ v)
        return self.head(x + self.down(torch.nn.functional.gelu(self.up(self.norm(x)))))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))


def linear() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 3))


def deep_linear() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4), nn.Linear(4, 3))


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


def lenet() -> nn.Module:
    """Mean pooling and tanh, as in 1989."""
    return nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(18, 3), nn.Sigmoid()
    )


def sequence() -> nn.Module:
    return nn.Sequential(nn.Conv1d(2, 3, 3), nn.GELU(), nn.AdaptiveAvgPool1d(1), nn.Flatten())
