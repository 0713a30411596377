"""Checkpoints: the network, the masks and the state after a step, one file a step.

A file is written aside, synced and renamed, so a name stands for a complete file. It is valid for
one job only: same spec, same dense network, same data, told apart by a fingerprint.
"""

import hashlib
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pruning.data.batches import ArrayData
from pruning.formats.streamed import write_tensors
from pruning.job import Job, State
from pruning.metrics import Evaluation
from pruning.report.schema import DampingTrial, LayerOutput, Round
from pruning.report.study import Stopped
from pruning.report.trust import Check, Trust
from pruning.state import load_state, state_of

KEY = "secateur"

PAUSE = 20.0
"""Seconds of training between two checkpoints of it, at least."""

Snapshot = tuple[dict[str, Tensor], dict[str, Any]]
"""Tensors, the module's weights among them, and the other values of a state."""


class Checkpoints:
    """The checkpoints of one run in a folder; without a folder nothing outlives the process.

    Args:
        folder: Where the files lie, whose names begin with `label`; None keeps the newest state of
            the run in `memory`, or nothing without one.
        job: What is run. Its `digest` has been taken, where there is a folder.
        label: Tells the runs of a job apart; empty for its only one.
        memory: Shared by the runs of a job.
    """

    def __init__(
        self,
        folder: Path | None,
        job: Job,
        label: str = "",
        memory: dict[str, Any] | None = None,
    ) -> None:
        self.folder, self.job, self.label, self.memory = folder, job, label, memory
        self.prefix = f"{label}-" if label else ""
        self._name = re.compile(re.escape(self.prefix) + r"round-(\d+)\.safetensors")
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            text = job.digest + job.spec.model_dump_json()
            self.fingerprint = hashlib.sha256(text.encode()).hexdigest()

    def save(self, state: State, number: int | None = None) -> None:
        """Write `<label>-round-<number>.safetensors`, by default the number of steps done."""
        if self.folder is None and self.memory is None:
            return
        if self.folder is None:
            assert self.memory is not None
            self.memory[self.label] = self.snapshot(state)
            return
        path = self._path(len(state.rounds) if number is None else number)
        self.write(path, self._tensors(state), {"state": _state_values(state)})

    def snapshot(self, state: State) -> Snapshot:
        """The module's weights and the state, as they are now."""
        tensors = self._tensors(state)
        # Each a copy: the module goes on.
        tensors = {k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()}
        return tensors, deepcopy(_state_values(state))

    def _tensors(self, state: State) -> dict[str, Tensor]:
        tensors = {f"module.{k}": v for k, v in state_of(self.job.module).items()}
        tensors |= {"kept": state.kept, "saliency": state.saliency}
        return tensors | {f"each.{k}": v for k, v in state.each.items()}

    def layers(self, number: int) -> "SolvedLayers":
        """Those of step `number`, each in a file of its own."""
        return SolvedLayers(self, number)

    def training(self, number: int) -> "Training":
        """The training after step `number`, between its epochs."""
        return Training(self, number)

    def write(self, path: Path, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Aside, synced and renamed; the event is sent when it is there."""
        record = {"fingerprint": self.fingerprint, "threads": torch.get_num_threads(), **values}
        record["digest"] = _digest(tensors, _canonical(record))
        aside = path.with_suffix(".part")
        with aside.open("wb") as file:
            write_tensors(file, tensors, {KEY: json.dumps(record)})
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
        _sync_folder(path.parent)
        self.job.narrator.checkpoint(path)

    def read(self, path: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Tensors and values of a file of this very job that is whole; None for any other."""
        found = _whole(path)
        return found if found and found[1].get("fingerprint") == self.fingerprint else None

    def latest(self) -> State | None:
        """The state of the newest valid checkpoint, whose weights are put into the module."""
        found = self.newest()
        return None if found is None else self.restore(found)

    def newest(self) -> Snapshot | None:
        """The newest valid checkpoint, by its number; the module stays as it is."""
        if self.folder is None:
            return (self.memory or {}).get(self.label)
        numbers = [int(m[1]) for p in self.folder.iterdir() if (m := self._name.fullmatch(p.name))]
        for number in sorted(numbers, reverse=True):
            found = self.found(number)
            if found is not None:
                return found
        return None

    def at(self, number: int) -> State | None:
        """The state after `number` steps, its weights put into the module; None without a file."""
        found = self.found(number)
        return None if found is None else self.restore(found)

    def found(self, number: int) -> Snapshot | None:
        """What was written after `number` steps; None without a valid file."""
        record = None if self.folder is None else self.read(self._path(number))
        if record is None:
            return None
        snapshot = record[0], record[1].get("state", {})
        try:
            _state_of(snapshot)
        except (KeyError, TypeError, ValueError):
            return None  # whole, but written by another version
        return snapshot

    def restore(self, snapshot: Snapshot) -> State:
        """The state of a snapshot, its weights put into the module."""
        tensors, device = snapshot[0], self.job.device
        module = {k: v for k, v in tensors.items() if k.startswith("module.")}
        load_state(self.job.module, {k.removeprefix("module."): v for k, v in module.items()})
        state = _state_of(snapshot)
        state.kept, state.saliency = (t.to(device).clone() for t in (state.kept, state.saliency))
        return state

    def _path(self, number: int) -> Path:
        assert self.folder is not None
        return self.folder / f"{self.prefix}round-{number}.safetensors"


@dataclass(frozen=True)
class SolvedLayers:
    """Layers that were solved within a step, as `layer-<step>-<layer>.safetensors`."""

    checkpoints: Checkpoints
    step: int

    def find(self, name: str) -> dict[str, Tensor] | None:
        """What was kept of a layer; None without a valid file."""
        path = self._path(name)
        found = None if path is None else self.checkpoints.read(path)
        return None if found is None else found[0]

    def keep(self, name: str, tensors: dict[str, Tensor]) -> None:
        """Write a layer's file."""
        path = self._path(name)
        if path is not None:
            self.checkpoints.write(path, tensors, {})

    def _path(self, name: str) -> Path | None:
        folder, job = self.checkpoints.folder, self.checkpoints.job
        if folder is None:
            return None
        index = [p.name for p in job.weights.layers].index(name)
        return folder / f"{self.checkpoints.prefix}layer-{self.step}-{index}.safetensors"


class Training:
    """A training between two epochs, as `train-<step>.safetensors`; a newer one replaces it.

    Time decides when it is written, and nothing else: it is no part of what is kept.

    Args:
        checkpoints: Of the run.
        step: After which step of the schedule; 0 for soft pruning, before the first.
    """

    def __init__(self, checkpoints: Checkpoints, step: int) -> None:
        self.checkpoints, self.step, self._since = checkpoints, step, time.monotonic()

    def due(self) -> bool:
        """Whether `PAUSE` went by since the last one, or since training began."""
        enough = time.monotonic() - self._since >= PAUSE
        return enough and self.checkpoints.folder is not None

    def find(self) -> Snapshot | None:
        """What was kept; None without a valid file."""
        path = self._path()
        found = None if path is None else self.checkpoints.read(path)
        return None if found is None else (found[0], found[1]["training"])

    def keep(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Write the file. Tensors are copied one after the other, not all at once."""
        path = self._path()
        if path is not None:
            self.checkpoints.write(path, tensors, {"training": values})
        self._since = time.monotonic()

    def _path(self) -> Path | None:
        folder, prefix = self.checkpoints.folder, self.checkpoints.prefix
        return None if folder is None else folder / f"{prefix}train-{self.step}.safetensors"


def _state_values(state: State) -> dict[str, Any]:
    return {
        "dense": {"loss": state.dense.loss, "metrics": {}, "samples": state.dense.samples},
        "dense_metrics": state.dense_metrics,
        "predicted_by_layer": state.predicted_by_layer,
        "rounds": [r.model_dump() for r in state.rounds],
        "sweep": [t.model_dump() for t in state.sweep],
        "pruned_metrics": state.pruned_metrics,
        "recovered_metrics": state.recovered_metrics,
        "trust": None if state.trust is None else state.trust.model_dump(mode="json"),
        "trust_checks": [c.model_dump(mode="json") for c in state.trust_checks],
        "general": state.general,
        "layer_outputs": [o.model_dump() for o in state.layer_outputs],
        "notes": state.notes,
        "stopped": None if state.stopped is None else state.stopped.model_dump(),
        "begun": state.begun,
    }


def _state_of(snapshot: Snapshot) -> State:
    """The state of a snapshot, whose tensors it shares.

    Raises:
        KeyError, TypeError, ValueError: It is none of this version.
    """
    tensors, values = snapshot[0], deepcopy(snapshot[1])
    each = {k.removeprefix("each."): v for k, v in tensors.items() if k.startswith("each.")}
    stopped = values["stopped"]
    return State(
        dense=Evaluation(**values["dense"]),
        dense_metrics=values["dense_metrics"],
        kept=tensors["kept"],
        saliency=tensors["saliency"],
        predicted_by_layer=values["predicted_by_layer"],
        rounds=[Round.model_validate(r) for r in values["rounds"]],
        sweep=[DampingTrial.model_validate(t) for t in values["sweep"]],
        pruned_metrics=values["pruned_metrics"],
        recovered_metrics=values["recovered_metrics"],
        trust=None if values["trust"] is None else Trust.model_validate(values["trust"]),
        trust_checks=[Check.model_validate(c) for c in values["trust_checks"]],
        general=values["general"],
        layer_outputs=[LayerOutput.model_validate(o) for o in values["layer_outputs"]],
        notes=values["notes"],
        each=each,
        stopped=None if stopped is None else Stopped.model_validate(stopped),
        begun=values["begun"],
    )


@contextmanager
def threads_of(folder: Path | None) -> Iterator[None]:
    """Inside, torch uses as many threads as when the checkpoints in the folder were written.

    Sums depend on their number, so a job that is resumed elsewhere keeps that of its beginning.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(_recorded_threads(folder) or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _recorded_threads(folder: Path | None) -> int | None:
    for path in sorted(folder.glob("*.safetensors")) if folder is not None else ():
        whole = _whole(path)
        threads = whole and whole[1].get("threads")
        if isinstance(threads, int) and threads > 0:
            return threads
    return None


def _whole(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and values of a file in which no bit has changed; None for any other."""
    try:
        with safe_open(path, framework="pt") as file:
            record = json.loads((file.metadata() or {}).get(KEY, "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError):
        return None
    if not isinstance(record, dict):
        return None
    digest = record.pop("digest", None)
    return (tensors, record) if digest == _digest(tensors, _canonical(record)) else None


def _canonical(record: dict[str, Any]) -> str:
    """One text for the same values, before they are written and after they were read."""
    return json.dumps(json.loads(json.dumps(record)), sort_keys=True)


def digest_of(job: Job) -> str:
    """Of what every run of a job starts from: dense network, earlier checkpoint, data."""
    tensors = state_of(job.module)
    earlier = job.dense.rewind_to or {}
    tensors |= {f"rewind_to/{name}": tensor for name, tensor in earlier.items()}
    for role in ("calibration", "training", "evaluation"):
        data: ArrayData = getattr(job.data, role)
        tensors |= {f"{role}.{name}": tensor for name, tensor in data.inputs.items()}
        if data.target is not None:
            tensors[f"{role}/target"] = data.target
    return _digest(tensors)


def _digest(tensors: dict[str, Tensor], text: str = "") -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)};".encode())
        if tensor.numel():
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
