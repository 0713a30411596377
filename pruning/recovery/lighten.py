"""What a job need not hold while its network trains, put aside."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from pruning.job import Job, State

LARGE = 16 << 20
"""Bytes from which a tensor in memory goes to a file meanwhile."""


@contextmanager
def lightened(job: "Job", state: "State") -> Iterator[None]:
    """The saliencies, 8 bytes a weight, are out of the device's memory meanwhile.

    From a GPU they go to the CPU, from the CPU to a temporary file. The layer numbers of the flat
    weights, as large, are made again where they are needed.

    Args:
        job: Its module trains.
        state: `state.saliency` has no entries meanwhile.
    """
    job.weights.__dict__.pop("group", None)
    saliency = state.saliency
    if saliency.nbytes < LARGE:
        yield
        return
    state.saliency = saliency.new_empty(0)
    if saliency.device.type != "cpu":
        aside = saliency.cpu()
        device = saliency.device
        del saliency
        yield
        state.saliency = aside.to(device)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "saliency"
        kind = saliency.numpy().dtype
        saliency.numpy().tofile(path)
        del saliency
        yield
        state.saliency = torch.from_numpy(np.fromfile(path, kind))
