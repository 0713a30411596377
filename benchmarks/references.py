"""Runs the authors' own code of SparseGPT and ALPS on a weight and its Gram matrix.

The code is not part of this project: SECATEUR_REFERENCES names a folder that holds clones of
`IST-DASLab/sparsegpt` and `mazumder-lab/ALPS` as `sparsegpt` and `ALPS`. Both expect the package
`transformers` (for one class, not used here) and ALPS a GPU; the class is stood in for and the
device's name is replaced as the files are read, and nothing else of them is changed.
"""

import contextlib
import io
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from unittest import mock

import torch
from torch import Tensor, nn

VARIABLE = "SECATEUR_REFERENCES"


def folder() -> Path | None:
    """Where the references are, or None if the variable is not set."""
    name = os.environ.get(VARIABLE)
    return Path(name) if name else None


@contextlib.contextmanager
def _quiet(device: torch.device) -> Iterator[None]:
    """What they print is dropped, and on a CPU there is no GPU to wait for."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.ExitStack() as stack:
        if device.type == "cpu":
            stack.enter_context(mock.patch.object(torch.cuda, "synchronize"))
        yield


def _load(file: Path, device: torch.device) -> ModuleType:
    text = file.read_text(encoding="utf-8").replace("'cuda:0'", repr(str(device)))
    module = ModuleType(f"reference_{file.stem}")
    transformers = ModuleType("transformers")
    transformers.Conv1D = type("Conv1D", (), {})  # type: ignore[attr-defined]
    with mock.patch.dict(sys.modules, {"transformers": transformers}):
        sys.path.insert(0, str(file.parent))
        try:
            exec(compile(text, str(file), "exec"), module.__dict__)
        finally:
            sys.path.remove(str(file.parent))
    return module


def _layer(weight: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device=weight.device)
    layer.weight.data = weight.clone()
    return layer


Run = Callable[..., tuple[Tensor, float]]
"""(weight [o, d], gram [d, d], sparsity, n, m) to the pruned weight and seconds; n of m stay."""


def sparsegpt(root: Path, device: torch.device) -> Run:
    """`SparseGPT.fasterprune` with blocks of 128 and 1 % damping."""
    module = _load(root / "sparsegpt" / "sparsegpt.py", device)

    def run(weight: Tensor, gram: Tensor, sparsity: float, n: int = 0, m: int = 0):  # type: ignore[no-untyped-def]
        job = module.SparseGPT(_layer(weight))
        job.H = gram.clone()
        start = time.perf_counter()
        with _quiet(device), torch.no_grad():
            job.fasterprune(sparsity, prunen=m - n, prunem=m, percdamp=0.01)
        return job.layer.weight.data, time.perf_counter() - start

    return run


def alps(root: Path, device: torch.device) -> Run:
    """`ALPS_prune.ALPS_admm` as its scripts call it; its damping is 1 % too."""
    module = _load(root / "ALPS" / "alps.py", device)

    def run(weight: Tensor, gram: Tensor, sparsity: float, n: int = 0, m: int = 0):  # type: ignore[no-untyped-def]
        job = module.ALPS_prune(_layer(weight), 1, 1)
        job.XtX = gram.clone()
        start = time.perf_counter()
        with _quiet(device), torch.no_grad():
            job.ALPS_admm(sparsity, nm_n=n, nm_m=m)
        return job.layer.weight.data, time.perf_counter() - start

    return run
