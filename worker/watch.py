"""Holds a child that works to its memory and threads, from a thread of the supervisor's process.

The kernel bounds neither for one child alone: the limit on address space is a loose one, and that
on processes counts those of the user, root's excepted. What the supervisor does in between, a slow
database or a file to store, puts no look off.
"""

import signal
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from worker import processes

MAX_THREADS = 4096
"""Threads of a child and of whatever it has started. Layer-wise jobs keep two for each batch."""

_LOOK_SECONDS = 0.05  # in which a process may touch some 200 MB a core, or start 2,000 threads
_FAMILY_SECONDS = 0.5  # how often processes are looked for that the child has started


@dataclass(frozen=True)
class Excess:
    """What was over its limit, and ended the child."""

    what: Literal["memory", "threads"]
    limit: int
    found: int


class Watch:
    """Looks after one child until `end`, and ends it where it takes too much.

    Args:
        leader: Its process, which leads its group.
        memory: Bytes that it may keep resident, pages it shares included; None for any number.
        threads: How many it may have.

    Attributes:
        excess: Why it was ended, if it was.
        peak: The most memory that was seen.
    """

    def __init__(self, leader: int, memory: int | None, threads: int = MAX_THREADS) -> None:
        self.excess: Excess | None = None
        self.peak = 0
        self._leader, self._memory, self._threads = leader, memory, threads
        self._family: list[int] = [leader]
        self._looked = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        if processes.visible():
            self._thread.start()

    def end(self) -> None:
        """Stop looking. To be called before the leader's number can be another process's."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while self.excess is None and not self._stop.wait(_LOOK_SECONDS):
            self._look()

    def _look(self) -> None:
        if time.monotonic() - self._looked >= _FAMILY_SECONDS:
            self._family = processes.of_group(self._leader) or [self._leader]
            self._looked = time.monotonic()
        kept, threads = processes.usage(self._family)
        self.peak = max(self.peak, kept)
        if self._memory is not None and kept > self._memory:
            self.excess = Excess("memory", self._memory, kept)
        elif threads > self._threads:
            self.excess = Excess("threads", self._threads, threads)
        else:
            return
        with suppress(ProcessLookupError, PermissionError):
            processes.signal_group(self._leader, signal.SIGKILL)
