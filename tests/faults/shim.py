"""What the preloaded library `shim.c` does in a service's processes, told from here."""

import ctypes
import mmap
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

WRITE, SYNC, RENAME, CREATE = 1, 2, 4, 8
EVERY = WRITE | SYNC | RENAME | CREATE
KILL_BEFORE, KILL_AFTER = -1, -2

_SOURCE = Path(__file__).with_name("shim.c")


class _Control(ctypes.Structure):
    _fields_ = [
        ("armed", ctypes.c_int),
        ("action", ctypes.c_int),
        ("calls", ctypes.c_int),
        ("skip", ctypes.c_int),
        ("times", ctypes.c_int),
        ("pid", ctypes.c_int),
        ("hits", ctypes.c_int),
        ("unused", ctypes.c_int),
        ("clock_ns", ctypes.c_longlong),
        ("folder", ctypes.c_char * 512),
    ]


class Shim:
    """The library, built into a folder, and the page of memory that tells it what to do.

    Args:
        folder: Where both are written; other users can read it (PostgreSQL runs as one).
    """

    def __init__(self, folder: Path) -> None:
        self.library, self._page = folder / "shim.so", folder / "shim.page"
        command = ["cc", "-O1", "-w", "-shared", "-fPIC", "-o", str(self.library), str(_SOURCE)]
        subprocess.run([*command, "-ldl"], check=True, timeout=60)
        self._page.write_bytes(bytes(4096))
        for path in (self.library, self._page):
            path.chmod(0o666 if path == self._page else 0o755)
        descriptor = os.open(self._page, os.O_RDWR)
        self._map = mmap.mmap(descriptor, 4096)
        os.close(descriptor)
        self._told = _Control.from_buffer(self._map)

    @staticmethod
    def possible() -> bool:
        """Whether this machine can build and preload it."""
        return os.name == "posix" and shutil.which("cc") is not None and Path("/proc/self").exists()

    @property
    def environment(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self.library), "SECATEUR_FAULTS_SHIM": str(self._page)}

    def arm(
        self, action: int, calls: int, folder: Path, *, skip: int = 0, times: int = -1, pid: int = 0
    ) -> None:
        """From now on calls on files below `folder` fail with an errno, or kill their process.

        Args:
            action: An errno, `KILL_BEFORE` or `KILL_AFTER`.
            calls: Kinds of calls, or'ed.
            folder: Calls on other files pass.
            skip: So many matching calls pass first.
            times: How many are acted on after these; -1 for all.
            pid: In this process alone; 0 for all.
        """
        told = self._told
        told.armed = 0
        told.action, told.calls, told.folder = action, calls, os.fsencode(folder)
        told.skip, told.times, told.pid, told.hits = skip, times, pid, 0
        told.armed = 1

    def disarm(self) -> int:
        """Nothing fails any more; how many calls were acted on since `arm`."""
        self._told.armed = 0
        return self._told.hits

    @contextmanager
    def armed(self, action: int, calls: int, folder: Path, **rest: int) -> Iterator[None]:
        self.arm(action, calls, folder, **rest)
        try:
            yield
        finally:
            self.disarm()

    @property
    def hits(self) -> int:
        return self._told.hits

    @property
    def clock(self) -> float:
        """Seconds by which the service's wall clock is ahead."""
        return self._told.clock_ns / 1e9

    @clock.setter
    def clock(self, seconds: float) -> None:
        self._told.clock_ns = int(seconds * 1e9)
