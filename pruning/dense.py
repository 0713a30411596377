"""The network before anything was removed, for those who go back to it or look at it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor, nn

from pruning.formats.streamed import write_tensors
from pruning.metrics import Evaluation
from pruning.state import state_of

NAME = "dense.safetensors"
"""Its file in the folder of checkpoints; none of these itself: every attempt has the upload."""


@dataclass(frozen=True)
class Evaluated:
    """The loss on the calibration data, and the metrics on the evaluation data."""

    loss: Evaluation
    metrics: Evaluation | None


@dataclass
class Dense:
    """What a job remembers of its dense network.

    Args:
        rewind_to: The state_dict of the earlier checkpoint that the job names.
        measured: Loss and metrics, once they are known.
        shares: Whether what is made at the dense weights is kept for later runs.
        known: What several runs from these weights share, by what it depends on.
        tensors: Its state_dict on the CPU, where there is no folder to put it.
        file: Where it lies, so that it takes no memory while nobody looks.
    """

    rewind_to: dict[str, Tensor] | None = None
    measured: Evaluated | None = None
    shares: bool = False
    known: dict[Any, Any] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    file: Path | None = None

    @property
    def kept(self) -> bool:
        """Whether `load` can answer."""
        return bool(self.tensors) or self.file is not None

    def keep(self, module: nn.Module, folder: Path | None) -> None:
        """Remember a module's present weights as the dense ones, if that was not done before."""
        if self.kept:
            return
        state = state_of(module)
        if folder is None:
            self.tensors = {k: v.detach().cpu().clone() for k, v in state.items()}
            return
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / NAME
        aside = path.with_suffix(".part")
        with aside.open("wb") as file:
            write_tensors(file, state, {})
        aside.replace(path)
        self.file = path

    def forget(self) -> None:
        """No run begins any more: curvature and the like are given back, small counts are not."""
        for what in self.known.keys() - {"uses", "packed"}:
            del self.known[what]

    def load(self) -> dict[str, Tensor]:
        """The state_dict, on the CPU."""
        if self.file is None:
            return self.tensors
        with safe_open(self.file, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
