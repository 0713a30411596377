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
