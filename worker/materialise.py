"""Filling a slot: input files, what an earlier child left, job.json."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pruning.errors import SecateurError
from pruning.formats.limits import Limits
from pruning.request import (
    CHECKPOINTS,
    DRAFT,
    DRAFT_REPORT,
    REFERENCE,
    REPORT_BYTES,
    FileRef,
    RunRequest,
    output_path,
)
from store.blobs import Blobs, DamagedBlobError
from store.claims import Claim, Input, NewArtifact
from store.settings import Settings
from worker.files import Tick, UnsafeFileError, fetch, open_output, plain
from worker.slots import Slot

Device = Literal["cpu", "cuda"]
_CHUNK = 1 << 20
_OUTPUTS_BYTES = 1 << 30


def device_of(klass: str) -> Device:
    """Where jobs of a class run."""
    return "cuda" if klass == "gpu" else "cpu"


def materialise(
    claim: Claim, slot: Slot, blobs: Blobs, settings: Settings, threads: int, tick: Tick
) -> dict[str, str]:
    """Put everything the first child needs into its slot.

    A checkpoint whose file is damaged or gone is left out: what one holds is computed again, to
    the same bytes, from whatever others there are.

    Args:
        claim: The job.
        slot: Of the first child.
        blobs: Where the files are.
        settings: The service's.
        threads: The job's.
        tick: Called while bytes are copied.

    Returns:
        The checkpoints left out, and why.

    Raises:
        SecateurError: `file_damaged` for an input.
        OSError: The disk is full.
        LookupError: An input is no longer in the store.
    """
    request = _request(claim, slot, blobs, settings, threads, tick)
    damaged = {}
    for checkpoint in claim.checkpoints:
        if not plain(checkpoint.name):
            continue
        path = slot.folder / CHECKPOINTS / checkpoint.name
        try:
            fetch(blobs, checkpoint.sha256, path, tick, checkpoint.bytes)
        except DamagedBlobError as error:
            damaged[checkpoint.name] = error.reason
    slot.job.write_text(request.model_dump_json())
    return damaged


def to_verify(
    claim: Claim,
    written: Sequence[NewArtifact],
    slot: Slot,
    blobs: Blobs,
    settings: Settings,
    threads: int,
    tick: Tick,
) -> None:
    """Put everything the verifying child needs into its slot, all of it out of the store.

    Args:
        claim: The job.
        written: What the first child wrote.
        slot: Of the second.
        blobs: Where the files are.
        settings: The service's.
        threads: The job's.
        tick: Called while bytes are copied.

    Raises:
        DamagedBlobError: A file that the first child wrote is damaged.
        SecateurError: `file_damaged` for an input.
        OSError: The disk is full.
        LookupError: An input is no longer in the store.
    """
    outputs = {}
    for artifact in written:
        path = output_path(artifact.name, artifact.format)
        (slot.folder / path).parent.mkdir(parents=True, exist_ok=True)
        stored = artifact.blob
        fetch(blobs, stored.sha256, slot.folder / path, tick, stored.bytes)
        outputs[artifact.name] = FileRef(path=path, name=artifact.name, sha256=artifact.blob.sha256)
    request = _request(claim, slot, blobs, settings, threads, tick, outputs)
    slot.job.write_text(request.model_dump_json())


def hand_on_draft(source: Slot, sink: Slot, settings: Settings, tick: Tick) -> None:
    """Copy the first child's draft to the slot of the second.

    Raises:
        UnsafeFileError: A file is not one to read, or is larger than it can be.
    """
    # Of the reference: masks take a bit a weight, the outputs of samples `reference.BYTES`, but
    # one sample is there however large its outputs are.
    limits = {DRAFT_REPORT: REPORT_BYTES, REFERENCE: settings.model_bytes_limit + _OUTPUTS_BYTES}
    folder = sink.folder / DRAFT
    folder.mkdir(mode=0o700)
    for name, limit in limits.items():
        with open_output(source.folder / DRAFT, name) as file, open(folder / name, "xb") as copy:
            while chunk := file.read(_CHUNK):
                if copy.tell() + len(chunk) > limit:
                    raise UnsafeFileError(f"{name!r} is larger than {limit} bytes")
                copy.write(chunk)
                tick()


def _request(
    claim: Claim,
    slot: Slot,
    blobs: Blobs,
    settings: Settings,
    threads: int,
    tick: Tick,
    outputs: dict[str, FileRef] | None = None,
) -> RunRequest:
    """What the child is asked for, its inputs copied."""

    def file(role: str, source: Input) -> FileRef:
        path = Path("inputs") / role
        try:
            copied(source, slot.folder / path)
        except DamagedBlobError as error:
            raise _damaged(claim, role, source, error) from error
        return FileRef(path=str(path), name=source.name, sha256=source.sha256)

    def copied(source: Input, path: Path) -> None:
        if not source.files:
            fetch(blobs, source.sha256, path, tick, source.bytes)
            return
        path.mkdir()
        for name, sha256 in source.files:
            if not plain(name):
                raise LookupError(f"a file of the upload is called {name[:80]!r}")
            fetch(blobs, sha256, path / name, tick)

    model, data, earlier = claim.model, dict(claim.data), claim.rewind_to
    rewind_to: FileRef | None
    if earlier is not None and outputs is not None:
        # Named in the manifest; its weights have been used.
        rewind_to = FileRef(path="inputs/rewind_to", name=earlier.name, sha256=earlier.sha256)
    else:
        rewind_to = file("rewind_to", earlier) if earlier else None
    if claim.kind == "check_model":
        model = claim.subject
    elif claim.kind == "check_dataset" and claim.subject is not None:
        data = {"calibration": claim.subject}
    if model is None and claim.kind != "check_dataset":
        raise LookupError("the job's model is gone")
    if not data and claim.kind != "check_model":
        raise LookupError("the job's data are gone")
    return RunRequest.model_validate(
        {
            "kind": claim.kind if outputs is None else "verify",
            "model": file("model", model) if model else None,
            "rewind_to": rewind_to,
            "data": {role: file(role, source) for role, source in data.items()},
            "spec": claim.spec if claim.kind != "check_dataset" else {},
            "outputs": outputs or {},
            "limits": Limits(
                model_bytes=settings.model_bytes_limit, data_bytes=settings.dataset_bytes_limit
            ),
            "threads": threads,
            "device": device_of(claim.klass),
        }
    )


def _damaged(claim: Claim, role: str, source: Input, error: DamagedBlobError) -> SecateurError:
    """What the user is told of an upload whose stored bytes have changed."""
    is_job = claim.kind == "prune"
    kind = "model" if role in ("model", "rewind_to") else "dataset"
    place = role if kind == "model" else f"data.{role}"
    then = ", then retry the job" if is_job else ""
    return SecateurError(
        "file_damaged",
        f"The stored file of {kind} {source.id} ({source.name}) is damaged: {error.reason}.",
        where=place if is_job else kind,
        hint=f"Upload the same bytes again{then}.",
    )
