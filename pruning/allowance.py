"""What a call of a library may take that nobody can interrupt, and who ends it where it takes more.

Such a call never comes back to Python, so nothing can be raised in it: a thread beside it looks at
the clock of the process's own work and at its memory, and ends the process by the way that was
agreed. A library's own process is never ended: without `ended_by` nothing is watched. Torch-free.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pruning.errors import SecateurError

_POLL_SECONDS = 0.02
_STATM = Path("/proc/self/statm")

End = Callable[[SecateurError], None]
"""Says the error and ends the process."""

_end: End | None = None


def ended_by(end: End | None) -> None:
    """How this process is ended; None for not at all."""
    global _end
    _end = end


def work() -> float:
    """Seconds of computing that the process has done, all threads together."""
    return time.process_time()


@contextmanager
def at_most(seconds: float, memory: int, error: SecateurError) -> Iterator[None]:
    """Ends the process where what runs inside takes more.

    Args:
        seconds: Of computing, all threads of the process together.
        memory: Bytes over those that the process has at the beginning.
        error: What is said then.
    """
    end, held = _end, resident()
    if end is None:
        yield
        return
    over = threading.Event()
    latest = work() + seconds

    def watch() -> None:
        while not over.wait(_POLL_SECONDS):
            grown = resident() - held
            if work() > latest or grown > memory:
                end(error)
                return

    watcher = threading.Thread(target=watch, name="allowance", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def resident() -> int:
    """Bytes of memory that the process has; 0 where the system does not say."""
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
