"""How much memory one attempt may keep where the settings don't say: its share of the machine.

Pool processes of one service know how many they are. Of other services on the machine they know
those that use the same slots folder, as `worker.cores` does: all of them divide what there is by
weight, so that the limits of all attempts together stay under the machine's memory.
"""

import os
from contextlib import suppress
from pathlib import Path

from pruning.control_groups import folders, lines
from worker.slots import occupants

JOBS, CHECKS = 2, 1
"""Weights of a process that serves jobs, and of one that serves intake checks alone: a job keeps
the model that a check has read, and with it curvature, activations and a second copy."""

_SHARE = 0.8  # the rest is for the service itself, the kernel's caches and what else runs here
_AHEAD = 320 << 20  # what a child started ahead keeps for itself: the interpreter and torch
_LIMITS = ("memory.max", "memory.high", "memory.limit_in_bytes")
_KILLS = ("memory.events", "memory.oom_control")


def share(
    slots: Path, processes: int, weight: int = JOBS, machine: int | None = None
) -> int | None:
    """Bytes that the next attempt of a process may keep.

    Args:
        slots: The slots folder.
        processes: How many processes this one's service has.
        weight: That of each of them.
        machine: Bytes in all; what this machine or its container has where left out.

    Returns:
        None where the machine does not tell.
    """
    machine = machine_bytes() if machine is None else machine
    if machine is None:
        return None
    living = occupants(slots)
    weights = max(sum(o.weight for o in living), max(1, processes) * weight)
    usable = int(machine * _SHARE)
    ahead = min(sum(o.ahead for o in living) * _AHEAD, usable // 2)
    return (usable - ahead) * weight // weights


def machine_bytes(root: Path = Path("/")) -> int | None:
    """Memory of the machine, or of the container or control group that may have less.

    Args:
        root: Where `proc` and the control groups' file systems are looked for.
    """
    found = []
    with suppress(ValueError, OSError):
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for folder in folders("memory", root):
        for name in _LIMITS:
            with suppress(ValueError):  # no such file, or "max"
                found.append(int("".join(lines(folder / name)[:1])))
    return min((n for n in found if n > 0), default=None)


def kernel_kills(root: Path = Path("/")) -> int | None:
    """How many processes the kernel has ended for want of memory, in this control group if it says.

    Args:
        root: Where `proc` and the control groups' file systems are looked for.

    Returns:
        None where the kernel does not count them.
    """
    files = [folder / name for folder in folders("memory", root) for name in _KILLS]
    for file in (*files, root / "proc/vmstat"):
        for line in lines(file):
            name, _, count = line.partition(" ")
            if name == "oom_kill" and count.isdecimal():
                return int(count)
    return None
