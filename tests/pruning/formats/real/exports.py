"""Networks as files of torch's two exporters."""

import io
import logging
import warnings
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn

from tests.pruning.formats.real.networks import NETWORKS, Network


@dataclass(frozen=True)
class Style:
    """How a network is exported.

    Args:
        dynamo: By which of the exporters.
        opset: The exporter's own choice without one.
        batch: Whether the batch size is left open.
        free: Whether the network's other open sizes are left open too.
        folding: Of constants, which the older exporter can leave out.
        train: Whether the module is in training mode.
        training: `training=` of the older exporter.
    """

    dynamo: bool
    opset: int | None = None
    batch: bool = True
    free: bool = False
    folding: bool = True
    train: bool = False
    training: str = "EVAL"

    def __str__(self) -> str:
        parts = ["dynamo" if self.dynamo else "script"]
        parts += [str(self.opset)] * (self.opset is not None)
        parts += ["fixed"] * (not self.batch) + ["free"] * self.free
        parts += ["unfolded"] * (not self.folding) + ["train"] * self.train
        parts += [self.training.lower()] * (self.training != "EVAL")
        return "-".join(parts)


class _Tuple(nn.Module):
    """Outputs in a dictionary as a tuple, in whose order both exporters write them."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *inputs: Any) -> Any:
        found = self.inner(*inputs)
        return tuple(found.values()) if isinstance(found, dict) else found


@cache
def exported(name: str, style: Style, batch: int = 2) -> bytes:
    """The file of a network.

    Args:
        name: In `NETWORKS`.
        style: How it is written.
        batch: Samples of the example, which a fixed batch size keeps to.
    """
    network = NETWORKS[name]
    module = network.module().train(style.train)
    if name.startswith("deeplab"):
        module = _Tuple(module).train(style.train)
    inputs = network.draw(batch, seed=3)
    options: dict[str, Any] = {"input_names": list(inputs), "dynamo": style.dynamo}
    if style.opset is not None:
        options["opset_version"] = style.opset
    axes = _axes(network, style)
    if style.dynamo:
        options |= {"verbose": False, "external_data": False}
        if axes:
            options["dynamic_shapes"] = _dimensions(module, axes)
    else:
        options |= {
            "dynamic_axes": axes or None,
            "do_constant_folding": style.folding,
            "training": getattr(torch.onnx.TrainingMode, style.training),
        }
    file = io.BytesIO()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, tuple(inputs.values()), file, **options)
    return file.getvalue()


def _axes(network: Network, style: Style) -> dict[str, dict[int, str]]:
    found: dict[str, dict[int, str]] = {}
    for name in network.inputs:
        if style.batch:
            found.setdefault(name, {})[0] = "batch"
        if style.free:
            found.setdefault(name, {}).update(network.sizes.get(name, {}))
    return found


def _dimensions(module: nn.Module, axes: dict[str, dict[int, str]]) -> Any:
    dims = {word: torch.export.Dim.DYNAMIC for axis in axes.values() for word in axis.values()}
    found = [{at: dims[word] for at, word in axis.items()} for axis in axes.values()]
    return (tuple(found),) if isinstance(module, _Tuple) else tuple(found)
