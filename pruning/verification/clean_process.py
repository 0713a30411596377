"""A process of its own for one request, which shares no memory with the one that asked."""

import os
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import ValidationError

from pruning.errors import SecateurError
from pruning.events import EVENT, DoneEvent, Event, FailedEvent
from pruning.request import RunRequest, RunResult
from pruning.threads import variables

_ROOT = Path(__file__).resolve().parents[2]
_LOG_SHOWN = 2000
_WAIT = 10.0


class CleanProcess:
    """`python -m pruning.verification`, started at once so that its imports cost no time later.

    Leaving the `with` block ends it, whatever it does.

    Args:
        threads: Threads of its numeric libraries.
    """

    def __init__(self, threads: int) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "pruning.verification"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=_environment(threads),
            # Ctrl-C is for the process that asked, which ends this one.
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        if kind is not None:
            process.kill()
        with suppress(BrokenPipeError):  # it is gone already
            process.stdin.close()
        try:
            process.wait(_WAIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
        self._log.close()

    def __call__(
        self, request: RunRequest, folder: Path, emit: Callable[[Event], None] | None
    ) -> RunResult:
        """Has it do what the request asks for.

        Raises:
            SecateurError: What it says, or `child_crashed`.
        """
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        (folder / "job.json").write_text(request.model_dump_json())
        try:
            process.stdin.write(os.fsencode(folder.resolve() / "job.json") + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            raise self._died() from None
        for line in process.stdout:
            try:
                event = EVENT.validate_json(line)
            except ValidationError:
                raise self._died() from None
            if isinstance(event, FailedEvent):
                raise SecateurError.from_dict(event.error)
            if isinstance(event, DoneEvent):
                return RunResult.model_validate(event.result)
            if emit is not None:
                emit(event)
        raise self._died()

    def _died(self) -> SecateurError:
        self._process.kill()
        code = self._process.wait()
        self._log.seek(0)
        said = self._log.read()[-_LOG_SHOWN:].decode(errors="replace").strip()
        return SecateurError(
            "child_crashed",
            f"The process that verifies the files ended with exit code {code}: {said}",
            hint="Run it again; where it happens again, this is an error on our side.",
        )


def _environment(threads: int) -> dict[str, str]:
    """This process's own, with this package found first wherever it was imported from."""
    own = os.environ | variables(threads)
    if Path(sysconfig.get_path("purelib")).resolve() != _ROOT:
        own["PYTHONPATH"] = os.pathsep.join(filter(None, [str(_ROOT), own.get("PYTHONPATH", "")]))
    return own
