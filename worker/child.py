"""The child: imports ahead, waits for one job on stdin, runs it, says what happens, exits.

`python -m worker.child prune|checks|verify EVENTS_FD`; the word says for which work it imports
ahead, and it does any.
One line on stdin is the path of job.json (a `pruning.request.RunRequest`), in the slot folder; end
of file without a line means that there is no job after all. Events leave as JSON lines on
EVENTS_FD; stdout and stderr are a log.
"""

import errno
import importlib
import json
import math
import os
import select
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from pruning import allowance
from pruning.errors import SecateurError
from pruning.events import (
    DoneEvent,
    Event,
    FailedEvent,
    MetricEvent,
    PhaseEvent,
    ProgressEvent,
    WarningEvent,
)
from pruning.memory_errors import asked_for, out_of_memory
from pruning.report.numbers import size
from pruning.request import RunRequest, RunResult
from worker import seccomp
from worker.bounds import cut

# What a run imports late; a child that waits for its job has the time to do it now.
_CHECKS_AHEAD = ("pruning.run", "onnx", "torch", "pruning.formats.onnx")
_PRUNE_AHEAD = (
    *_CHECKS_AHEAD,
    "torch.func",
    "pruning.prune_files",
    "torch._dynamo",  # torch.func asks it something at the first derivative
)
_VERIFY_AHEAD = (
    *_CHECKS_AHEAD,
    "onnxruntime",
    "pruning.verification.run",
    "pruning.report.compiled",
)
AHEAD = {"prune": _PRUNE_AHEAD, "checks": _CHECKS_AHEAD, "verify": _VERIFY_AHEAD}
"""By the word that the child is started with."""
_PROGRESS_SECONDS = 1.0
_LINE_LIMIT = 1 << 20
_ERROR_LIMIT = 1 << 16
_TEXT_LIMIT = 2000
_DISK_FULL = "no space left on device"  # of libraries that write by themselves


class Voice:
    """Writes events, whole lines only, progress at most once a second within a phase."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lock = threading.Lock()
        self._progress_at = -math.inf
        self._held: ProgressEvent | None = None

    def say(self, event: Event) -> None:
        """Send one event, or hold a progress event back until its time comes."""
        with self._lock:
            if isinstance(event, ProgressEvent):
                if time.monotonic() - self._progress_at < _PROGRESS_SECONDS:
                    self._held = event
                    return
                self._progress_at = time.monotonic()
            elif isinstance(event, PhaseEvent | DoneEvent):
                self._progress_at = -math.inf
                self._flush()
            elif isinstance(event, MetricEvent) and not math.isfinite(event.value):
                event = WarningEvent(
                    code="loss_non_finite",
                    message=f"{event.name} is {event.value} at {event.stage}.",
                )
            self._held = None
            self._send(event)

    def _flush(self) -> None:
        if self._held is not None:
            self._send(self._held)
            self._held = None

    def _send(self, event: Event) -> None:
        line = event.model_dump_json().encode() + b"\n"
        if len(line) > _LINE_LIMIT:
            raise SecateurError(
                "internal_error", f"An event of {len(line)} bytes is over the limit of a line."
            )
        view = memoryview(line)
        while view:
            view = view[os.write(self._fd, view) :]


def failure(error: BaseException) -> SecateurError:
    """What a user is told about an exception that ended the run."""
    if isinstance(error, SecateurError) and error.code == "out_of_memory":
        return error
    text = str(error).lower()
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if full or (isinstance(error, RuntimeError) and _DISK_FULL in text):
        return SecateurError(
            "storage_full",
            "The disk had no room for the job's files.",
            hint="The job waits and is tried again; free space on the worker's disk.",
        )
    # Readers say of an upload that they can't read it, also where they ran out of memory.
    if out_of_memory(error):
        asked = asked_for(error)
        at_once = "" if asked is None else f", {size(asked)} at once"
        return SecateurError(
            "out_of_memory",
            f"The job asked for more memory than it may have{at_once}.",
            hint="Use a smaller block, fewer calibration samples or a smaller model.",
        )
    if isinstance(error, SecateurError):
        return error
    return SecateurError("internal_error", cut(f"{type(error).__name__}: {error}", _TEXT_LIMIT))


def told(error: SecateurError) -> dict[str, Any]:
    """The error as an event holds it: short enough for a line, without details if need be."""
    fields = error.as_dict()
    if len(json.dumps(fields)) <= _ERROR_LIMIT:
        return fields
    place, advice = (text and cut(text, _TEXT_LIMIT) for text in (error.where, error.hint))
    short = SecateurError(error.code, cut(error.message, _TEXT_LIMIT), where=place, hint=advice)
    return short.as_dict()


def import_ahead(names: Sequence[str]) -> None:
    """Imports until a job has come, which then imports what it needs and no more."""
    for name in names:
        if select.select([0], [], [], 0)[0]:
            return
        importlib.import_module(name)


def wait_for_job() -> Path | None:
    """The path of job.json, or None when there will be no job. Leaves stdin at /dev/null."""
    line = sys.stdin.buffer.readline()
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    return Path(os.fsdecode(line.removesuffix(b"\n"))) if line.endswith(b"\n") else None


def _ended(voice: Voice) -> allowance.End:
    """Ends the process in the midst of a call that nothing else can end."""

    def end(error: SecateurError) -> None:
        voice.say(FailedEvent(error=told(error)))
        os._exit(1)

    return end


def _run(job: Path, voice: Voice) -> None:
    from pruning.run import run_kind

    request = RunRequest.model_validate_json(job.read_bytes())
    result: RunResult = run_kind(request, job.parent, voice.say)
    voice.say(
        DoneEvent(
            state="succeeded" if result.rejected is None else "rejected",
            result=result.model_dump(mode="json"),
        )
    )


def main() -> NoReturn:
    """Serve one job."""
    if os.environ.get("SECATEUR_SANDBOX") in ("landlock", "bubblewrap"):
        # The launcher could not forbid it: it had to start this very program.
        seccomp.forbid_programs()
    voice = Voice(int(sys.argv[-1]))
    allowance.ended_by(_ended(voice))
    import_ahead(AHEAD[sys.argv[1]])
    job = wait_for_job()
    code = 0
    if job is not None:
        try:
            _run(job, voice)
        except Exception as error:
            traceback.print_exc()
            # What the frames hold may be all the memory there is.
            traceback.clear_frames(error.__traceback__)
            voice.say(FailedEvent(error=told(failure(error))))
            code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    # Everything is said and on disk: tearing torch down would only cost time.
    os._exit(code)


if __name__ == "__main__":
    main()
