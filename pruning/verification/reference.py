"""What the pruning process hands to the one that verifies: masks, and outputs of its network.

One safetensors file: the masks one bit a weight, the outputs of the pruned network in torch on the
first evaluation samples, and how many zeros each point of the curve had. The verifying process
holds the files to these; it takes nothing over from them.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pruning.curvature.network import first_output
from pruning.data.batches import ArrayData
from pruning.errors import SecateurError
from pruning.facts import ModelFacts
from pruning.formats import containers
from pruning.samples import by_samples, fit_to

SAMPLES = 256
"""Evaluation samples on which outputs are compared, at most."""

BYTES = 64 << 20
"""Bytes of their outputs, at most; one sample is always compared."""

FORMAT, VERSION = "reference", 1
_OUTPUTS, _MASK = "outputs", "mask."
_BATCH = 64


@dataclass(frozen=True)
class Reference:
    """The network as it was in memory.

    Args:
        masks: Keep masks by parameter name, in the weight's shape.
        outputs: First outputs of the first evaluation samples [n, ...].
        points: Zeros in the layers in scope, by the artifact of a point of the curve.
    """

    masks: dict[str, np.ndarray]
    outputs: np.ndarray
    points: dict[str, int]


def write(reference: Reference, path: Path) -> None:
    """Writes it to a file."""
    members = {
        f"{_MASK}{name}": np.packbits(mask.reshape(-1), bitorder="little")
        for name, mask in reference.masks.items()
    }
    shapes = {name: list(mask.shape) for name, mask in reference.masks.items()}
    containers.write(
        path,
        {**members, _OUTPUTS: reference.outputs},
        {
            "format": FORMAT,
            "version": VERSION,
            "shapes": shapes,
            "points": dict(sorted(reference.points.items())),
        },
    )


def read(path: Path) -> Reference:
    """Reads it back.

    Raises:
        SecateurError: `unsupported_format`.
    """
    members, metadata = containers.read(path, FORMAT, VERSION)
    shapes: Mapping[str, Any] = metadata["shapes"]
    masks = {}
    for name, shape in shapes.items():
        packed, size = members.get(f"{_MASK}{name}"), containers.size(shape)
        if packed is None or size is None or packed.shape != (math.ceil(size / 8),):
            raise SecateurError("unsupported_format", f"The reference lacks the mask {name!r}.")
        bits = np.unpackbits(packed, count=size, bitorder="little")
        masks[name] = bits.astype(bool).reshape(shape)
    return Reference(masks, members[_OUTPUTS], dict(metadata["points"]))


def compared(samples: int, one: int) -> int:
    """How many samples are compared, of so many with outputs of `one` bytes each."""
    return min(SAMPLES, samples, max(1, BYTES // max(1, one)))


@torch.no_grad()
def outputs_of(module: nn.Module, data: ArrayData, facts: ModelFacts) -> np.ndarray:
    """First outputs on the first samples, as many as `SAMPLES` and `BYTES` allow.

    Args:
        module: In evaluation mode, on the CPU.
        data: Evaluation samples.
        facts: How the module takes samples.
    """
    parts: list[np.ndarray] = []
    left = min(SAMPLES, data.samples)
    with by_samples(module):
        fit_to(module, data, facts)
        for inputs, _ in data.select(slice(0, left)).batches(_BATCH):
            found = first_output(module(*inputs)).numpy()
            held = sum(part.nbytes for part in parts)
            room = max(0 if parts else 1, (BYTES - held) // max(1, found[:1].nbytes))
            parts.append(found[:room])
            if room < len(found):
                break
    return np.concatenate(parts)
