"""Networks as people write them, small, for architecture.json."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Case:
    name: str
    module: Callable[[], nn.Module]
    inputs: Callable[[int], tuple[Tensor, ...]]
    pruned: bool = True


class Block(nn.Module):
    def __init__(self, width: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.relu = nn.ReLU(inplace=True)
        self.down: nn.Module | None = None
        if stride != 1:
            self.down = nn.Sequential(
                nn.Conv2d(width, out, 1, stride, bias=False), nn.BatchNorm2d(out)
            )

    def forward(self, x: Tensor) -> Tensor:
        kept = x if self.down is None else self.down(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x))
        x += kept
        return self.relu(x)


class Residual(nn.Module):
    """ResNet-like, with functions for what has no weights."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.blocks = nn.Sequential(Block(6, 6, 1), Block(6, 8, 2))
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.stem(x)), 2)
        x = F.adaptive_avg_pool2d(self.blocks(x), (1, 1))
        x = F.dropout(torch.flatten(x, 1), 0.2, training=self.training)
        return self.head(x)


class Inverted(nn.Module):
    """MobileNetV2-like: expansion, depthwise, squeeze and excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.expand = nn.Sequential(nn.Conv2d(4, 12, 1, bias=False), nn.BatchNorm2d(12), nn.ReLU6())
        self.depth = nn.Sequential(
            nn.Conv2d(12, 12, 3, padding=1, groups=12, bias=False),
            nn.BatchNorm2d(12),
            nn.Hardswish(),
        )
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(12, 4, 1), nn.SiLU(), nn.Conv2d(4, 12, 1)
        )
        self.project = nn.Conv2d(12, 4, 1)
        self.head = nn.Conv2d(4, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.depth(self.expand(x))
        y = y * self.gate(y).sigmoid()
        return self.head(x + self.project(y)).mean([2, 3])


class Encoder(nn.Module):
    """nn.TransformerEncoder with a mask made from the ids, learned positions, a pooled head."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 8, padding_idx=0)
        self.positions = nn.Parameter(torch.randn(1, 10, 8))
        layer = nn.TransformerEncoderLayer(
            8, 2, 16, batch_first=True, activation="gelu", norm_first=True
        )
        self.encoder = nn.TransformerEncoder(
            layer, 2, norm=nn.LayerNorm(8), enable_nested_tensor=False
        )
        self.head = nn.Linear(8, 3)

    def forward(self, ids: Tensor) -> Tensor:
        length = ids.size(1)
        x = self.embedding(ids) * 8**0.5 + self.positions[:, :length]
        empty = ids == 0
        x = self.encoder(x, src_key_padding_mask=empty)
        kept = (~empty).unsqueeze(-1).to(x.dtype)
        return self.head((x * kept).sum(1) / kept.sum(1).clamp(min=1.0))


class Attention(nn.Module):
    """ViT-like, its attention written out, the sizes taken from the input."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.token = nn.Parameter(torch.zeros(1, 1, 8))
        self.norm = nn.LayerNorm(8)
        self.qkv = nn.Linear(8, 24)
        self.out = nn.Linear(8, 8)
        self.head = nn.Linear(8, 4)
        self.register_buffer("scales", torch.linspace(0.5, 1.0, 8), persistent=False)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1)
        batch, length, width = x.shape
        if length % 2 == 0:
            raise ValueError("an odd number of tokens")
        parts = self.qkv(self.norm(x)).reshape(batch, length, 3, 2, width // 2)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        near = torch.arange(length, device=x.device)
        bias = -(near[None] - near[:, None]).abs().to(x.dtype)
        scores = (q @ k.transpose(-2, -1)) * (width // 2) ** -0.5 + bias
        scores = scores.masked_fill(near[None] > near[:, None] + 2, float("-inf"))
        y = (scores.softmax(dim=-1) @ v).transpose(1, 2).reshape(batch, length, width)
        x = x + self.out(y) * self.scales
        return {"logits": self.head(x[:, 0]), "features": x.mean(dim=1)}


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(5, 6, 2, batch_first=True, bidirectional=True)
        self.gru = nn.GRU(12, 4, batch_first=True)
        self.hidden = nn.Linear(12, 8)
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x, (state, _) = self.lstm(x)
        last, _ = self.gru(x)
        both = torch.cat([state[-2], state[-1]], dim=-1)
        return self.head(torch.cat([torch.tanh(self.hidden(both)), last[:, -1]], dim=-1))


class Tied(nn.Module):
    """A language model whose output layer is its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.inner = nn.Linear(8, 8)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 20, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids)
        return self.head(self.norm(x + F.gelu(self.inner(x), approximate="tanh")))


class Two(nn.Module):
    """Two inputs, a layer used twice, a decoder that brings an image back to its size."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Conv2d(2, 4, 3, padding="same", padding_mode="reflect")
        self.down = nn.MaxPool2d(2, ceil_mode=True)
        self.up = nn.ConvTranspose2d(4, 4, 2, 2)
        self.out = nn.Conv2d(8, 1, 1)
        self.prelu = nn.PReLU(4)

    def forward(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        a, b = self.prelu(self.shared(left)), self.prelu(self.shared(right))
        y = self.up(self.down(a - b))
        y = F.interpolate(y, size=a.shape[2:], mode="bilinear", align_corners=False)
        y = F.pad(y, (1, 1, 1, 1))[..., 1:-1, 1:-1]
        return self.out(torch.cat([y, a], 1)), (a * b).amax(dim=(2, 3))


def drawn(*shape: int) -> Callable[[int], tuple[Tensor, ...]]:
    def make(batch: int) -> tuple[Tensor, ...]:
        return (torch.randn((batch, *shape), generator=torch.Generator().manual_seed(batch)),)

    return make


def ids(batch: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(batch)
    found = torch.randint(1, 20, (batch, 7), generator=generator)
    found[:, 5:] *= torch.randint(0, 2, (batch, 1), generator=generator)
    return (found,)


CASES = [
    Case("residual", Residual, drawn(3, 12, 12)),
    Case("inverted", Inverted, drawn(4, 6, 6)),
    Case("encoder", Encoder, ids),
    Case("attention", Attention, drawn(3, 8, 16), pruned=True),
    Case("recurrent", Recurrent, drawn(6, 5)),
    Case("tied", Tied, ids),
    Case("two inputs", Two, lambda n: drawn(2, 2, 7, 7)(n)[0].unbind(1), pruned=False),
]
