"""Which processes belong to a child, seen from outside: its group, its session, its slot folder.

A process that a child started stays in the child's group and session unless it leaves them on
purpose; it still carries the slot folder as HOME in its environment. Zombies don't count: they hold
nothing and wait for whoever adopted them.
"""

import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_PROC = Path("/proc")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_GONE = {"Z", "X"}


class _Stat(NamedTuple):
    """Of one process."""

    state: str
    group: int
    session: int
    threads: int
    resident: int


def _stat(pid: int) -> _Stat | None:
    """What the kernel tells of a process; None when it is gone."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    # The command's name stands in parentheses and may itself hold spaces and parentheses.
    fields = text[text.rindex(")") + 2 :].split()
    group, session, threads, pages = (int(fields[i]) for i in (2, 3, 17, 21))
    return _Stat(fields[0], group, session, threads, pages * _PAGE)


def _lives_in(pid: int, home: Path) -> bool:
    try:
        variables = (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return False
    inside = b"HOME=" + os.fsencode(home)
    return any(v == inside or v.startswith(inside + b"/") for v in variables)


def _all() -> Iterator[int]:
    own = os.getpid()
    for name in os.listdir(_PROC):
        if name.isdigit() and int(name) != own:
            yield int(name)


def of_group(group: int) -> list[int]:
    """Living processes in the group or the session that `group` leads."""
    found = []
    for pid in _all():
        stat = _stat(pid)
        if stat is not None and stat.state not in _GONE and group in stat[1:3]:
            found.append(pid)
    return found


def of_folder(home: Path) -> list[int]:
    """Living processes whose HOME is the folder or lies in it, whatever group they moved to."""
    return [p for p in _all() if _lives_in(p, home) and (s := _stat(p)) and s.state not in _GONE]


def usage(pids: Iterable[int]) -> tuple[int, int]:
    """Bytes that processes keep resident, pages they share counted for each, and their threads."""
    stats = [s for s in map(_stat, pids) if s is not None and s.state not in _GONE]
    return sum(s.resident for s in stats), sum(s.threads for s in stats)


def visible() -> bool:
    """True where the kernel shows processes under /proc (Linux)."""
    return (_PROC / "self" / "stat").exists()


def group_alive(group: int) -> bool:
    """True while any process of the group lives."""
    if visible():
        return bool(of_group(group))
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def signal_group(group: int, number: signal.Signals) -> None:
    """Signal every process of the group, and of its session where that can be seen."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
    if not visible():
        return
    for pid in of_group(group):
        kill(pid, number)


def kill(pid: int, number: signal.Signals) -> None:
    """Signal one process that may be gone already."""
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def sweep(home: Path) -> None:
    """Kill whatever still runs on the folder, also what left the child's group and session."""
    if not visible():
        return
    for _ in range(5):  # a process may fork between the look and the kill
        left = of_folder(home)
        if not left:
            return
        for pid in left:
            kill(pid, signal.SIGKILL)
