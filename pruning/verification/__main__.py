"""What `CleanProcess` starts: imports, waits for the path of job.json on stdin, runs it, exits.

Events leave as JSON lines on what was stdout when it started; whatever else is printed goes to
stderr. End of file without a line means that there is nothing to do after all.
"""

import os
import sys
import traceback
from pathlib import Path
from typing import BinaryIO

from pruning.errors import SecateurError
from pruning.events import DoneEvent, Event, FailedEvent
from pruning.request import RunRequest


def main() -> None:
    """Serve one request."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    # While the other process prunes.
    import pruning.report.compiled
    import pruning.verification.run  # noqa: F401

    line = sys.stdin.buffer.readline()
    if line.endswith(b"\n"):
        _serve(Path(os.fsdecode(line[:-1])), out)
    out.flush()
    sys.stderr.flush()
    # Everything is said and on disk: tearing torch down would only cost time.
    os._exit(0)


def _serve(job: Path, out: BinaryIO) -> None:
    def say(event: Event) -> None:
        out.write(event.model_dump_json().encode() + b"\n")
        out.flush()

    try:
        from pruning.run import run_kind

        request = RunRequest.model_validate_json(job.read_bytes())
        result = run_kind(request, job.parent, say)
    except SecateurError as error:
        say(FailedEvent(error=error.as_dict()))
    except Exception as error:
        traceback.print_exc()
        text = f"{type(error).__name__}: {str(error)[:2000]}"
        say(FailedEvent(error=SecateurError("internal_error", text).as_dict()))
    else:
        say(DoneEvent(result=result.model_dump(mode="json")))


if __name__ == "__main__":
    main()
