"""The two clocks, each in one place.

`utcnow` is the wall clock: what timestamps show to people. It may be set at any moment, by hours
and in either direction, and differs from machine to machine, so nothing is decided by comparing
two of its readings where a wrong answer would cost anything. `elapsed` is what durations are
measured with, within one process: leases, leadership, grace.
"""

import time
from datetime import UTC, datetime

# Counts the time that the machine is suspended, which CLOCK_MONOTONIC leaves out on Linux.
_BOOTTIME: int | None = getattr(time, "CLOCK_BOOTTIME", None)


def utcnow() -> datetime:
    """The current time, aware, in UTC."""
    return datetime.fromtimestamp(time.time(), UTC)


def elapsed() -> float:
    """Seconds on a clock that nobody sets and that never goes back.

    It has no meaning outside this process, and on another machine not even a rate in common.
    """
    return time.monotonic() if _BOOTTIME is None else time.clock_gettime(_BOOTTIME)


class EarliestTime:
    """The earliest that a wall clock could show for now, as far as this process has seen it go.

    Files and rows bear the time that the wall clock showed when they were written. Who removes what
    is old must not take a clock that was set forward for age, nor take what was written while it
    was behind for older than it is: ages are counted from here.
    """

    def __init__(self) -> None:
        self._behind = time.time() - elapsed()

    def now(self) -> datetime:
        """To be asked often: only so is a clock seen that was set back and then forth again."""
        self._behind = min(self._behind, time.time() - elapsed())
        return datetime.fromtimestamp(self._behind + elapsed(), UTC)
