"""One attempt, file in and result out: a check of an upload, or a pruning.

The same function serves the worker's child process and `secateur prune --local`. Each kind imports
its own needs: a check of a dataset runs without torch, one of a model without onnxruntime.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pruning.events import Event
from pruning.formats.intake import check_dataset, check_model
from pruning.progress import Narrator
from pruning.request import RunRequest, RunResult

Emit = Callable[[Event], None]


def run(request: RunRequest, folder: Path, emit: Emit | None = None) -> RunResult:
    """Does what the request asks for.

    A `prune` leaves its artifacts in `folder/out`, which appears only when all are complete and
    verified, and its checkpoints in `folder/checkpoints`, from which a later attempt goes on.

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

        return prune_files(request, folder, emit, narrator)
    narrator.phase("checking")
    facts: Any
    if request.kind == "check_model":
        import torch

        assert request.model is not None
        torch.set_num_threads(request.threads)
        facts = check_model(folder / request.model.path, request.limits)
    else:
        (ref,) = request.data.values()
        facts = check_dataset(folder / ref.path, request.limits)
    return RunResult(facts=facts.model_dump(mode="json"))
