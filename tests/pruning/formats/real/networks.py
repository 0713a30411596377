"""The networks that the tests export, with inputs of the kind that each of them takes."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tests.pruning.formats.real import attention, sequences, vision


@dataclass(frozen=True)
class Network:
    """What to export.

    Args:
        build: Makes the module.
        inputs: By name what to draw: sizes of one sample, and for integers how many there are.
        sizes: By input the axes besides the first that may vary, with their names.
    """

    build: Callable[[], nn.Module]
    inputs: dict[str, tuple[tuple[int, ...], int | None]]
    sizes: dict[str, dict[int, str]]

    def module(self) -> nn.Module:
        """The module with seeded weights, its norms not at their first values, in eval mode."""
        torch.manual_seed(0)
        module = self.build().eval()
        with torch.no_grad():
            for part in module.modules():
                if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d | nn.LayerNorm | nn.GroupNorm):
                    part.weight.uniform_(0.7, 1.3)
                    part.bias.uniform_(-0.2, 0.2)
                if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
                    part.running_mean.uniform_(-0.3, 0.3)
                    part.running_var.uniform_(0.6, 1.4)
        return module

    def draw(self, count: int, seed: int = 1) -> dict[str, Tensor]:
        """`count` samples."""
        generator = torch.Generator().manual_seed(seed)
        found = {}
        for name, (size, values) in self.inputs.items():
            if values is None:
                found[name] = torch.randn(count, *size, generator=generator)
            elif name == "attention_mask":
                real = torch.randint(size[0] // 2, size[0] + 1, (count, 1), generator=generator)
                found[name] = (torch.arange(size[0])[None] < real).long()
            else:
                found[name] = torch.randint(0, values, (count, *size), generator=generator)
        return found


def _image(build: Callable[[], nn.Module], size: int = 16, channels: int = 3) -> Network:
    return Network(build, {"image": ((channels, size, size), None)}, {})


def _text(build: Callable[[], nn.Module], words: int, length: int = 8) -> Network:
    return Network(build, {"tokens": ((length,), words)}, {"tokens": {1: "length"}})


_BERT: dict[str, tuple[tuple[int, ...], int | None]] = {
    "input_ids": ((8,), 40),
    "attention_mask": ((8,), 2),
    "token_type_ids": ((8,), 2),
}
_LENGTHS = {name: {1: "sequence"} for name in _BERT}
_FREE = {"image": {2: "height", 3: "width"}}

NETWORKS: dict[str, Network] = {
    "resnet": _image(vision.ResNet, 32),
    "mobilenet": _image(vision.MobileNetV2),
    "unet": Network(vision.UNet, {"image": ((3, 12, 12), None)}, _FREE),
    "unet_bilinear": _image(lambda: vision.UNet(learned=False), 12),
    "convnext": _image(vision.ConvNeXt),
    "efficientnet": _image(vision.EfficientNet),
    "yolo": _image(vision.Yolo),
    "yolo_free": Network(vision.Yolo, {"image": ((3, 16, 16), None)}, _FREE),
    "deeplab": _image(vision.DeepLab),
    "deeplab_free": Network(vision.DeepLab, {"image": ((3, 16, 16), None)}, _FREE),
    "vit": _image(attention.ViT),
    "vit_plain": _image(lambda: attention.ViT(fused=False)),
    "transformer": Network(attention.TorchTransformer, {"x": ((7, 6), None)}, {"x": {1: "length"}}),
    "bert": Network(attention.Bert, _BERT, _LENGTHS),
    "bert_tied": Network(lambda: attention.Bert(tied=True), _BERT, _LENGTHS),
    "llama": _text(attention.Llama, 40),
    "swin": _image(attention.Swin),
    "lstm": _text(sequences.Recurrent, 30),
    "gru": _text(lambda: sequences.Recurrent(nn.GRU), 30),
    "forecast": Network(sequences.Forecast, {"series": ((9, 5), None)}, {}),
    "crnn": Network(sequences.Crnn, {"image": ((1, 16, 24), None)}, {"image": {3: "width"}}),
    "crnn_steps_first": Network(
        lambda: sequences.Crnn(steps_first=True), {"image": ((1, 16, 24), None)}, {}
    ),
    "audio": Network(sequences.Audio, {"wave": ((120,), None)}, {}),
    "whisper": Network(sequences.Whisper, {"mel": ((6, 20), None)}, {}),
    "textline": Network(sequences.TextLine, {"image": ((3, 16, 32), None)}, {}),
}
