"""How much memory one attempt may keep where the settings don't say."""

import os
from contextlib import suppress
from pathlib import Path

_CONTROL_GROUPS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
_SHARE = 0.8  # the rest is for the worker itself, the kernel's caches and other services


def share(processes: int, machine: int | None = None) -> int | None:
    """Bytes for each of several attempts that run side by side.

    Args:
        processes: How many there are.
        machine: Bytes in all; what this machine or its container has where left out.

    Returns:
        None where the machine does not tell.
    """
    machine = machine_bytes() if machine is None else machine
    return None if machine is None else int(machine * _SHARE) // max(1, processes)


def machine_bytes() -> int | None:
    """Memory of the machine, or of the container if that may have less."""
    found = []
    with suppress(ValueError, OSError):
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for file in _CONTROL_GROUPS:
        try:
            found.append(int(file.read_text()))
        except (OSError, ValueError):
            continue  # no such group, or "max"
    return min((n for n in found if n > 0), default=None)
