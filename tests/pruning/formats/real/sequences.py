"""Audio, text and OCR networks with recurrent and one-dimensional layers, with tiny widths."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class Recurrent(nn.Module):
    """Embedding, two bidirectional recurrent layers, a head on the last step."""

    def __init__(self, kind: type[nn.LSTM | nn.GRU] = nn.LSTM) -> None:
        super().__init__()
        self.embedding = nn.Embedding(30, 8)
        self.rnn = kind(8, 6, 2, batch_first=True, bidirectional=True, dropout=0.1)
        self.fc = nn.Linear(12, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        outputs, _ = self.rnn(self.embedding(tokens))
        return self.fc(outputs[:, -1])


class Forecast(nn.Module):
    """A plain one-way LSTM on numbers, its last state read, with steps first inside."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.fc = nn.LSTM(5, 7), nn.Linear(7, 2)

    def forward(self, series: Tensor) -> tuple[Tensor, Tensor]:
        _, (hidden, cell) = self.lstm(series.transpose(0, 1))
        return self.fc(hidden[-1]), cell[-1]


class Crnn(nn.Module):
    """Shi et al. 2015: convolutions that fold the height away, an LSTM, scores a column."""

    def __init__(self, steps_first: bool = False) -> None:
        super().__init__()
        self.steps_first = steps_first
        self.cnn = nn.Sequential(
            nn.Conv2d(1, 6, 3, 1, 1), nn.ReLU(True), nn.MaxPool2d(2, 2),
            nn.Conv2d(6, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.ReLU(True), nn.MaxPool2d((2, 1)),
            nn.Conv2d(8, 8, (4, 2)), nn.ReLU(True),
        )  # fmt: skip
        self.rnn = nn.LSTM(8, 6, bidirectional=True)
        self.embedding = nn.Linear(12, 11)

    def forward(self, image: Tensor) -> Tensor:
        columns = self.cnn(image).squeeze(2).permute(2, 0, 1)
        outputs, _ = self.rnn(columns)
        steps, count, width = outputs.size()
        scores = self.embedding(outputs.view(steps * count, width)).view(steps, count, -1)
        scores = functional.log_softmax(scores, 2)
        return scores if self.steps_first else scores.permute(1, 0, 2)


class Audio(nn.Module):
    """Convolutions over time with group norms, a gated unit, squeezed by statistics pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.front = nn.Conv1d(1, 8, 10, 5, bias=False)
        self.norm = nn.GroupNorm(8, 8)
        self.glu = nn.Conv1d(8, 16, 3, padding=1, padding_mode="reflect")
        self.separable = nn.Conv1d(8, 8, 5, padding="same", groups=8)
        self.instance = nn.InstanceNorm1d(8, affine=True)
        self.point = nn.Conv1d(8, 12, 1)
        self.head = nn.Linear(24, 5)

    def forward(self, wave: Tensor) -> Tensor:
        x = functional.gelu(self.norm(self.front(wave[:, None])))
        x = functional.glu(self.glu(x), 1)
        x = functional.elu(self.instance(self.separable(x)))
        x = self.point(x)
        return self.head(torch.cat([x.mean(2), x.std(2, unbiased=False)], 1))


class Whisper(nn.Module):
    """Radford et al. 2022, the encoder: strided convolutions over time, then attention."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv1d(6, 12, 3, padding=1), nn.Conv1d(12, 12, 3, 2, 1)
        self.register_buffer("positions", torch.randn(10, 12) * 0.1)
        self.ln, self.post = nn.LayerNorm(12), nn.LayerNorm(12)
        self.query, self.value, self.out = (nn.Linear(12, 12) for _ in range(3))
        self.key = nn.Linear(12, 12, bias=False)
        self.mlp = nn.Sequential(nn.LayerNorm(12), nn.Linear(12, 24), nn.GELU(), nn.Linear(24, 12))

    def forward(self, mel: Tensor) -> Tensor:
        x = functional.gelu(self.conv2(functional.gelu(self.conv1(mel))))
        x = (x.permute(0, 2, 1) + self.positions).to(mel.dtype)
        y = self.ln(x)
        q, k, v = (
            z.view(*z.shape[:2], 2, -1).permute(0, 2, 1, 3)
            for z in (self.query(y), self.key(y), self.value(y))
        )
        scores = (q * 6**-0.25) @ (k * 6**-0.25).transpose(-1, -2)
        y = (scores.float().softmax(-1) @ v).permute(0, 2, 1, 3).flatten(2)
        x = x + self.out(y)
        return self.post(x + self.mlp(x))


class TextLine(nn.Module):
    """A recogniser without recurrence, as newer OCR has it: strided stages, attention, scores."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.Hardswish()
        )
        self.deep = nn.Sequential(
            nn.Conv2d(8, 8, 3, (2, 1), 1, groups=8, bias=False), nn.BatchNorm2d(8), nn.Hardswish(),
            nn.Conv2d(8, 12, 1, bias=False), nn.BatchNorm2d(12), nn.Hardswish(),
        )  # fmt: skip
        self.squeeze = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(12, 4, 1), nn.ReLU(), nn.Conv2d(4, 12, 1),
            nn.Hardsigmoid(),
        )  # fmt: skip
        self.attention = nn.MultiheadAttention(12, 2, batch_first=True)
        self.norm, self.fc = nn.LayerNorm(12), nn.Linear(12, 11)

    def forward(self, image: Tensor) -> Tensor:
        x = self.deep(self.stem(image))
        x = functional.avg_pool2d(x * self.squeeze(x), (4, 1))
        x = x.squeeze(2).transpose(1, 2)
        x = self.norm(x + self.attention(x, x, x, need_weights=False)[0])
        return self.fc(x).softmax(-1)
