"""One attempt, file in and result out: a check of an upload, or a pruning in its two halves.

A pruning is two kinds, one after the other and each in a process of its own: `prune` leaves files
and a draft of the report, `verify` reads the files again and writes the reports. A worker runs one
kind a child (`run_kind`); `run` is the whole attempt for everybody else. Each kind imports its own
needs: a check of a dataset runs without torch, one of a model without onnxruntime.
"""

import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from pruning.course import Course
from pruning.events import Event
from pruning.formats.intake import check_dataset, check_model
from pruning.progress import Narrator
from pruning.request import DRAFT, OUT, FileRef, RunRequest, RunResult, output_path
from pruning.spec import parse_spec
from pruning.verification.clean_process import CleanProcess

Emit = Callable[[Event], None]

_ASIDE = ".verified"
"""Where a pruning is verified; gone at the end."""


def run(
    request: RunRequest, folder: Path, emit: Emit | None = None, *, clean: bool = True
) -> RunResult:
    """Does what the request asks for, a pruning as a whole.

    A pruning leaves its artifacts in `folder/out`, which appears only when all are complete and
    verified, and its checkpoints in `folder/checkpoints`, from which a later attempt goes on.

    Args:
        request: What to do; paths in it are relative to `folder`.
        folder: The job folder.
        emit: Receives events.
        clean: Verify in a new process, which has nothing of the first in its memory; False does it
            here, where a second start would cost more than the pruning.

    Raises:
        SecateurError: With the code, the place and what to do; nothing is left in `folder/out`.
    """
    if request.kind != "prune":
        return run_kind(request, folder, emit)
    aside, told = folder / _ASIDE, _as_one(emit)
    # It imports while this process prunes.
    with CleanProcess(request.threads) if clean else nullcontext(run_kind) as verify:
        try:
            first = run_kind(request, folder, told)
            second = hand_over(request, first, folder, aside)
            result = verify(second, aside, told)
            for ref in second.outputs.values():
                (aside / ref.path).rename(aside / OUT / ref.name)
            (aside / OUT).rename(folder / OUT)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return result.model_copy(update={"artifacts": [*first.artifacts, *result.artifacts]})


def _as_one(emit: Emit | None) -> Emit | None:
    """Receives the events of both halves as those of one job."""
    if emit is None:
        return None
    course, send = Course(), emit
    return lambda event: send(course.told(event))


def hand_over(request: RunRequest, first: RunResult, folder: Path, aside: Path) -> RunRequest:
    """Moves what a `prune` wrote to a folder of its own.

    Args:
        request: Of the `prune`.
        first: Its result.
        folder: Its job folder.
        aside: The new one.

    Returns:
        The `verify` to be done there.
    """
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    (folder / DRAFT).rename(aside / DRAFT)
    outputs = {}
    for artifact in first.artifacts:
        path = output_path(artifact.name, artifact.format)
        (aside / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / OUT / artifact.name).rename(aside / path)
        outputs[artifact.name] = FileRef(path=path, name=artifact.name)
    (folder / OUT).rmdir()

    def found(ref: FileRef) -> FileRef:
        return ref.model_copy(update={"path": str((folder / ref.path).resolve())})

    assert request.model is not None
    return request.model_copy(
        update={
            "kind": "verify",
            "model": found(request.model),
            "data": {role: found(ref) for role, ref in request.data.items()},
            "outputs": outputs,
        }
    )


def run_kind(request: RunRequest, folder: Path, emit: Emit | None = None) -> RunResult:
    """Does one kind in this process.

    Args:
        request: What to do; paths in it are relative to `folder`.
        folder: The job folder.
        emit: Receives events.

    Raises:
        SecateurError: With the code, the place and what to do; nothing is left in `folder/out`.
    """
    narrator = Narrator(emit)
    if request.kind == "prune":
        from pruning.prune_files import prune_files

        return prune_files(request, folder, narrator)
    if request.kind == "verify":
        from pruning.verification.run import verify_files

        return verify_files(request, folder, narrator)
    narrator.phase("checking")
    facts: Any
    if request.kind == "check_model":
        import torch

        assert request.model is not None
        torch.set_num_threads(request.threads)
        declared = parse_spec(request.spec).declared
        facts = check_model(folder / request.model.path, request.limits, declared)
    else:
        (ref,) = request.data.values()
        facts = check_dataset(folder / ref.path, request.limits)
    return RunResult(facts=facts.model_dump(mode="json"))
