"""Small networks as torch.export archives, and archives taken apart and put together again."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, export, save
from torch.nn import functional

DOCUMENT = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"


class Cnn(nn.Module):
    """Residual sums, batch norm, activations in place, dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.act = nn.ReLU(inplace=True)
        self.deep = nn.Conv2d(6, 6, 3, padding=1, groups=2)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm(self.stem(x)))
        y = self.deep(x)
        y += x
        return self.head(self.drop(functional.adaptive_avg_pool2d(y, 1).flatten(1)))


class Tied(nn.Module):
    """A transformer with fused attention, and a head tied to its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 24, dropout=0.2, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(16, 20, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        early = torch.arange(ids.shape[1], device=ids.device) < ids.shape[1] - 1
        return self.head(self.encoder(self.embed(ids) + early[:, None]))


class Recurrent(nn.Module):
    """An LSTM, a weight used as it is, a change of a part in place, a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(5, 6, 2, batch_first=True, bidirectional=True, dropout=0.1)
        self.turn = nn.Parameter(torch.randn(12, 8))
        self.head = nn.Linear(8, 3)
        self.shift = torch.arange(3.0)

    def forward(self, x: Tensor) -> Tensor:
        y = self.rnn(x)[0][:, -1] @ self.turn
        y[:, 0] = 0
        return self.head(y) + self.shift


def cnn() -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The network and its inputs."""
    torch.manual_seed(0)
    module = Cnn()
    module.norm.running_mean.normal_()
    module.norm.running_var.uniform_(0.5, 2)
    return module, (torch.randn(3, 3, 8, 8),)


def tied() -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The network and its inputs."""
    torch.manual_seed(0)
    return Tied(), (torch.randint(0, 20, (3, 6)),)


def recurrent() -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The network and its inputs."""
    torch.manual_seed(0)
    return Recurrent(), (torch.randn(3, 4, 5),)


CASES: dict[str, Callable[[], tuple[nn.Module, tuple[Tensor, ...]]]] = {
    "cnn": cnn,
    "tied": tied,
    "recurrent": recurrent,
}


def exported(
    folder: Path,
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    *,
    free: bool = True,
    core: bool = False,
    name: str = "network",
) -> Path:
    """Saves an export of the module in its present mode.

    Args:
        folder: Where to.
        module: The network.
        inputs: Samples.
        free: Whether the batch size stays free.
        core: Whether the operators are decomposed into core ATen.
        name: Of the file.
    """
    shapes = tuple({0: Dim("batch")} for _ in inputs) if free else None
    program = export(module, inputs, dynamic_shapes=shapes)
    path = folder / f"{name}.pt2"
    save(program.run_decompositions() if core else program, path)
    return path


def members(path: Path) -> dict[str, bytes]:
    """All members of an archive, by their names below its folder."""
    with zipfile.ZipFile(path) as archive:
        return {n.partition("/")[2]: archive.read(n) for n in archive.namelist()}


def archive(path: Path, parts: dict[str, bytes], **options: Any) -> Path:
    """Writes an archive of stored members."""
    with zipfile.ZipFile(path, "w", **options) as target:
        for name, data in parts.items():
            target.writestr(f"network/{name}", data)
    return path


def changed(source: Path, path: Path, member: str, change: Callable[[Any], None]) -> Path:
    """Writes the archive with one of its JSON documents changed."""
    parts = members(source)
    document = json.loads(parts[member])
    change(document)
    parts[member] = json.dumps(document).encode()
    return archive(path, parts)


def graph(document: Any) -> Any:
    """The graph of a program's document."""
    return document["graph_module"]["graph"]
