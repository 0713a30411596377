"""Filling a slot: input files, the checkpoints of earlier attempts, job.json."""

from pathlib import Path
from typing import Literal

from pruning.formats.limits import Limits
from pruning.request import CHECKPOINTS, FileRef, RunRequest
from store.blobs import Blobs
from store.claims import Claim, Input
from store.settings import Settings
from worker.files import Tick, fetch, plain
from worker.slots import Slot

Device = Literal["cpu", "cuda"]


def device_of(klass: str) -> Device:
    """Where jobs of a class run."""
    return "cuda" if klass == "gpu" else "cpu"


def materialise(claim: Claim, slot: Slot, blobs: Blobs, settings: Settings, tick: Tick) -> None:
    """Put everything the child needs into its slot; `tick` is called while bytes are copied.

    Raises:
        OSError: A blob can't be read or the disk is full.
        LookupError: An input is no longer in the store.
    """

    def file(role: str, source: Input) -> FileRef:
        path = Path("inputs") / role
        if source.files:
            (slot.folder / path).mkdir()
            for name, sha256 in source.files:
                if not plain(name):
                    raise LookupError(f"a file of the upload is called {name[:80]!r}")
                fetch(blobs, sha256, slot.folder / path / name, tick)
        else:
            fetch(blobs, source.sha256, slot.folder / path, tick)
        return FileRef(path=str(path), name=source.name, sha256=source.sha256)

    model, data = claim.model, dict(claim.data)
    if claim.kind == "check_model":
        model = claim.subject
    elif claim.kind == "check_dataset" and claim.subject is not None:
        data = {"calibration": claim.subject}
    if model is None and claim.kind != "check_dataset":
        raise LookupError("the job's model is gone")
    if not data and claim.kind != "check_model":
        raise LookupError("the job's data are gone")
    request = RunRequest.model_validate(
        {
            "kind": claim.kind,
            "model": file("model", model) if model else None,
            "data": {role: file(role, source) for role, source in data.items()},
            "spec": claim.spec if claim.kind == "prune" else {},
            "limits": Limits(
                model_bytes=settings.model_bytes_limit, data_bytes=settings.dataset_bytes_limit
            ),
            "threads": settings.threads,
            "device": device_of(claim.klass),
        }
    )
    for checkpoint in claim.checkpoints:
        if plain(checkpoint.name):
            path = slot.folder / CHECKPOINTS / checkpoint.name
            fetch(blobs, checkpoint.sha256, path, tick)
    slot.job.write_text(request.model_dump_json())
