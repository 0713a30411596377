"""Networks with weights of every kind, as every door gets them."""

from pathlib import Path

import torch
from torch import Tensor, nn

from pruning.formats.architecture import export
from pruning.formats.contract import Imported
from pruning.formats.limits import Limits
from pruning.formats.registry import read_model

FORMATS = ("architecture", "pt2", "onnx")


class Steps(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], **options: int | bool) -> None:
        super().__init__()
        self.r = kind(8, 4, batch_first=True, **options)
        self.f = nn.Linear(8 if options.get("bidirectional") else 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.f(self.r(x)[0][:, -1])


class Attended(nn.Module):
    def __init__(self, cross: bool) -> None:
        super().__init__()
        self.a, self.c = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 3)
        self.cross = cross

    def forward(self, x: Tensor) -> Tensor:
        keys, values = (x[:, :2] * 2, x[:, :2]) if self.cross else (x, x)
        return self.c(self.a(x, keys, values)[0].mean(1))


class Product(nn.Module):
    def __init__(self, *shape: int, left: bool) -> None:
        super().__init__()
        self.w, self.left = nn.Parameter(torch.randn(*shape)), left
        self.c = nn.Linear(8 if left else shape[-1], 3)

    def forward(self, x: Tensor) -> Tensor:
        if self.left:
            return self.c((self.w @ x).mean(1))
        y = x @ self.w if self.w.ndim == 2 else (x.unsqueeze(1) @ self.w).mean(1)
        return self.c(y.mean(1))


class Decoder(nn.Module):
    """Attention to other tokens, whose keys and values one part of a packed weight makes."""

    def __init__(self) -> None:
        super().__init__()
        self.d = nn.TransformerDecoderLayer(8, 2, 16, batch_first=True)
        self.c = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.d(x, x * 2).mean(1))


class Experts(nn.Module):
    """A matrix for each of the five tokens, and one weight that is used in two parts."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.p = nn.Parameter(torch.randn(5, 8, 6)), nn.Parameter(torch.randn(16, 6))
        self.c = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.einsum("bti,tio->bto", x, self.w)
        gate, value = self.p.chunk(2)
        return self.c((nn.functional.linear(h, gate) * nn.functional.linear(h, value)).mean(1))


class Tied(nn.Module):
    """A layer called twice, and another that shares its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.b.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.b(torch.relu(self.a(torch.relu(self.a(x))))).mean(1))


class Grown(nn.Module):
    """A linear layer, and a transposed convolution that makes the output."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.up = nn.Linear(8, 16), nn.ConvTranspose2d(4, 2, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.fc(x.mean(1)).reshape(-1, 4, 2, 2))


class TwoOutputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(8, 8), nn.Linear(8, 2), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = torch.relu(self.a(x))
        return self.c(h).mean(1), self.b(h)


class Stream(nn.Module):
    """A residual stream that is put out: both layers that add to it make the output."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(8, 16), nn.Linear(16, 8), nn.Linear(8, 8)
        self.n = nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        h = x + self.b(torch.relu(self.a(x)))
        return self.n(h + self.c(h)).mean(1)


class Sized(nn.Module):
    """Nothing but the shape of a layer's result reaches the output beside the last layer."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        return self.b(torch.tanh(h)).reshape(h.shape[0], -1)


class Images(nn.Module):
    """Grouped, strided and dilated convolutions of both kinds on [N, 5, 8] seen as images."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(1, 4, 3, stride=2, padding=1)
        self.wide = nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=2)
        self.up = nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2, output_padding=1)
        self.line = nn.ConvTranspose1d(6, 3, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.up(torch.relu(self.wide(self.down(x.unsqueeze(1)))))
        return self.line(y.mean(2)).mean(2)


def networks() -> dict[str, nn.Module]:
    """By name, in evaluation mode; each takes [N, 5, 8]."""
    torch.manual_seed(0)
    made: dict[str, nn.Module] = {
        "lstm": Steps(nn.LSTM),
        "stacked": Steps(nn.LSTM, num_layers=2, bidirectional=True),
        "gru": Steps(nn.GRU),
        "rnn": Steps(nn.RNN),
        "attention": Attended(cross=False),
        "cross": Attended(cross=True),
        "left": Product(4, 5, left=True),
        "right": Product(8, 6, left=False),
        "batched": Product(2, 8, 6, left=False),
        "decoder": Decoder(),
        "experts": Experts(),
        "tied": Tied(),
        "grown": Grown(),
        "two": TwoOutputs(),
        "stream": Stream(),
        "sized": Sized(),
        "images": Images(),
    }
    return {name: module.eval() for name, module in made.items()}


def samples(count: int) -> Tensor:
    """Inputs [count, 5, 8]."""
    return torch.randn(count, 5, 8, generator=torch.Generator().manual_seed(1))


def imported(module: nn.Module, form: str, folder: Path) -> Imported:
    """The module, written in a format and read again."""
    x = samples(3)
    path = folder / {"architecture": "net", "pt2": "net.pt2", "onnx": "net.onnx"}[form]
    if form == "architecture":
        export(module, (x,), path)
    elif form == "pt2":
        sizes = ({0: torch.export.Dim("n", min=2)},)
        torch.export.save(torch.export.export(module, (x,), dynamic_shapes=sizes), path)
    else:
        torch.onnx.export(
            module, (x,), path, dynamo=False, input_names=["x"], dynamic_axes={"x": {0: "n"}}
        )
    return read_model(path, Limits())
