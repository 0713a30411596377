"""Image networks as people export them, every part of the original in place and the widths tiny."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class _Basic(nn.Module):
    def __init__(self, entries: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(entries, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1 or entries != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(entries, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        aside = x if self.downsample is None else self.downsample(x)
        y = self.bn1(self.conv1(x)).relu()
        return (self.bn2(self.conv2(y)) + aside).relu()


class ResNet(nn.Module):
    """He et al. 2016: basic blocks, strided convolutions, max and average pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = nn.Sequential(_Basic(8, 8, 1), _Basic(8, 8, 1))
        self.layer2 = nn.Sequential(_Basic(8, 12, 2), _Basic(12, 12, 1))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.fc(torch.flatten(self.avgpool(self.layer2(self.layer1(x))), 1))


class _Inverted(nn.Module):
    def __init__(self, entries: int, outputs: int, stride: int, expand: int) -> None:
        super().__init__()
        inner = entries * expand
        self.residual = stride == 1 and entries == outputs
        self.conv = nn.Sequential(
            nn.Conv2d(entries, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU6(),
            nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False),
            nn.BatchNorm2d(inner), nn.ReLU6(),
            nn.Conv2d(inner, outputs, 1, bias=False), nn.BatchNorm2d(outputs),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.residual else self.conv(x)


class MobileNetV2(nn.Module):
    """Sandler et al. 2018: inverted residuals, depthwise convolutions, ReLU6, dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6(inplace=True),
            _Inverted(8, 8, 1, 2), _Inverted(8, 12, 2, 3), _Inverted(12, 12, 1, 3),
            nn.Conv2d(12, 24, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU6(inplace=True),
        )  # fmt: skip
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(24, 10))

    def forward(self, x: Tensor) -> Tensor:
        x = functional.adaptive_avg_pool2d(self.features(x), (1, 1))
        return self.classifier(x.flatten(1))


def _double(entries: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(entries, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(),
    )  # fmt: skip


class UNet(nn.Module):
    """Ronneberger et al. 2015; `learned` upsampling is ConvTranspose, else bilinear."""

    def __init__(self, learned: bool = True) -> None:
        super().__init__()
        self.down1, self.down2, self.bottom = _double(3, 6), _double(6, 8), _double(8, 12)
        self.pool = nn.MaxPool2d(2)
        bilinear = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        self.lift2 = nn.ConvTranspose2d(12, 8, 2, 2) if learned else bilinear
        self.up2 = _double(16 if learned else 20, 8)
        self.lift1 = nn.ConvTranspose2d(8, 6, 3, 2, 1, 1) if learned else bilinear
        self.up1 = _double(12 if learned else 14, 6)
        self.head = nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.down1(x)
        second = self.down2(self.pool(first))
        y = self.lift2(self.bottom(self.pool(second)))
        # Sizes that two cannot divide are padded, as the much-copied implementation does.
        right, below = second.shape[3] - y.shape[3], second.shape[2] - y.shape[2]
        y = functional.pad(y, [right // 2, right - right // 2, below // 2, below - below // 2])
        y = self.up2(torch.cat([second, y], 1))
        return self.head(self.up1(torch.cat([first, self.lift1(y)], 1)))


class _ChannelNorm(nn.Module):
    """Layer norm over channels that come first, in ConvNeXt's own arithmetic."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        spread = (x - mean).pow(2).mean(1, keepdim=True)
        x = (x - mean) / torch.sqrt(spread + 1e-6)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


class _ConvNeXtBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.act = nn.GELU()
        self.pwconv2 = nn.Linear(4 * channels, channels)
        self.gamma = nn.Parameter(0.1 * torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        y = self.gamma * self.pwconv2(self.act(self.pwconv1(y)))
        return x + y.permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    """Liu et al. 2022: patch stem, 7x7 depthwise, linear layers on channels last, layer scale."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 4, 4), _ChannelNorm(8))
        self.stage1 = _ConvNeXtBlock(8)
        self.down = nn.Sequential(_ChannelNorm(8), nn.Conv2d(8, 12, 2, 2))
        self.stage2 = _ConvNeXtBlock(12)
        self.norm = nn.LayerNorm(12, eps=1e-6)
        self.head = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stage2(self.down(self.stage1(self.stem(x))))
        return self.head(self.norm(x.mean([-2, -1])))


class _MBConv(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = 3 * channels
        self.expand = nn.Sequential(
            nn.Conv2d(channels, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.SiLU(),
            nn.Conv2d(inner, inner, 5, padding=2, groups=inner, bias=False),
            nn.BatchNorm2d(inner), nn.SiLU(),
        )  # fmt: skip
        self.reduce, self.widen = nn.Conv2d(inner, 4, 1), nn.Conv2d(4, inner, 1)
        self.project = nn.Sequential(
            nn.Conv2d(inner, channels, 1, bias=False), nn.BatchNorm2d(channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.expand(x)
        gate = self.widen(functional.silu(self.reduce(y.mean((2, 3), keepdim=True))))
        return x + self.project(y * gate.sigmoid())


class EfficientNet(nn.Module):
    """Tan and Le 2019, with MobileNetV3's hard activations in its head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.SiLU()
        )
        self.blocks = nn.Sequential(_MBConv(8), _MBConv(8))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Sequential(
            nn.Linear(8, 16), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(16, 10)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.blocks(self.stem(x))).flatten(1))


class _Swish(nn.Module):
    def __init__(self, entries: int, outputs: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(entries, outputs, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return functional.silu(self.bn(self.conv(x)))


class Yolo(nn.Module):
    """The head and neck of ultralytics-like detectors: split, upsample, concat, sigmoid, grid."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down = _Swish(3, 8, 3, 2), _Swish(8, 16, 3, 2)
        self.inner = _Swish(8, 8, 3)
        self.fuse, self.spread = _Swish(24, 16), _Swish(32, 12)
        self.pool = nn.MaxPool2d(5, 1, 2)
        self.up = nn.Upsample(None, 2, "nearest")
        self.neck = _Swish(20, 12, 3)
        self.heads = nn.ModuleList(nn.Conv2d(12, 2 * 7, 1) for _ in range(2))
        self.register_buffer("anchors", torch.tensor([[1.0, 2.0], [3.0, 1.5]]).view(1, 2, 1, 1, 2))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        fine = self.stem(x)
        y = self.down(fine)
        left, right = y.chunk(2, 1)
        y = self.fuse(torch.cat([left, right, self.inner(right)], 1))
        coarse = self.spread(torch.cat([y, self.pool(y)], 1))
        fine = self.neck(torch.cat([self.up(coarse), fine], 1))
        raw, boxes = [], []
        for head, features, stride in zip(self.heads, (fine, coarse), (2, 4), strict=True):
            z = head(features)
            count, _, high, wide = z.shape
            z = z.view(count, 2, 7, high, wide).permute(0, 1, 3, 4, 2).contiguous()
            rows, columns = torch.meshgrid(
                torch.arange(high, device=z.device), torch.arange(wide, device=z.device),
                indexing="ij",
            )  # fmt: skip
            grid = torch.stack((columns, rows), 2).view(1, 1, high, wide, 2).float()
            where, size, rest = z.sigmoid().split((2, 2, 3), 4)
            where = (where * 2 - 0.5 + grid) * stride
            size = (size * 2) ** 2 * self.anchors
            boxes.append(torch.cat((where, size, rest), 4).view(count, -1, 7))
            raw.append(z)
        return torch.cat(boxes, 1), raw[0], raw[1]


class DeepLab(nn.Module):
    """Chen et al. 2017: dilated convolutions side by side, image pooling, bilinear resizing."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 12, 3, 2, 1, bias=False), nn.BatchNorm2d(12), nn.LeakyReLU(0.1),
        )  # fmt: skip
        self.rates = nn.ModuleList(
            nn.Conv2d(12, 6, 3, padding=rate, dilation=rate, bias=False) for rate in (1, 2, 3)
        )
        self.image = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(12, 6, 1), nn.PReLU(6))
        self.project = nn.Sequential(nn.Conv2d(24, 8, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.head, self.auxiliary = nn.Conv2d(8, 3, 1), nn.Conv2d(12, 3, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        size = x.shape[-2:]
        y = self.backbone(x)
        pooled = functional.interpolate(
            self.image(y), y.shape[-2:], mode="bilinear", align_corners=False
        )
        z = self.project(torch.cat([*(rate(y) for rate in self.rates), pooled], 1))
        out = functional.interpolate(self.head(z), size, mode="bilinear", align_corners=False)
        aux = functional.interpolate(self.auxiliary(y), size, mode="bilinear", align_corners=False)
        return {"out": out, "aux": aux}
