"""What a job need not hold while its network trains, put aside."""

import ctypes
import gc
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
    weights, as large, are made again where they are needed; what the step before left behind is
    given back.

    Args:
        job: Its module trains.
        state: `state.saliency` has no entries meanwhile.
    """
    saliency = state.saliency
    if saliency.nbytes < LARGE:
        yield
        return
    job.weights.__dict__.pop("group", None)
    # Derivatives leave tensors behind that only each other refer to.
    gc.collect()
    _return_memory()
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


def _return_memory() -> None:
    """Freed memory that the C library holds on to goes back to the system, where it can."""
    # Named by None: what this process has loaded; only glibc has it.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
