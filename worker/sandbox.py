"""What every child gets before its program starts, and the name of that level.

The level in force is `limits`: resource limits, a cleared environment, no new privileges, death
with the parent, a session of its own. It does not hide the file system or the network from the
child; stronger levels add their steps to `worker.launch` and their name here.
"""

import json
import os
import resource
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

LEVEL = "limits"

_LAUNCHER = Path(__file__).with_name("launch.py")
_ROOT = Path(__file__).resolve().parent.parent
# Mapped but never touched: program code, thread stacks and allocator arenas of an imported torch.
_IMPORTED_ADDRESS_SPACE = 4 << 30


@dataclass(frozen=True)
class Limits:
    """Resource limits of one child.

    Args:
        threads: Threads the numeric libraries may start.
        cpu_seconds: CPU time over all threads.
        file_bytes: Size of the largest file it may write.
        open_files: Open file descriptors.
    """

    threads: int
    cpu_seconds: int
    file_bytes: int
    open_files: int = 1024

    def rlimits(self) -> dict[str, int]:
        """The limits by their names in the `resource` module."""
        return {
            "RLIMIT_CORE": 0,
            "RLIMIT_CPU": self.cpu_seconds,
            "RLIMIT_FSIZE": self.file_bytes,
            "RLIMIT_NOFILE": self.open_files,
        }


def environment(slot: Path, threads: int, outer: Mapping[str, str] | None = None) -> dict[str, str]:
    """The child's whole environment: nothing of the worker's own, so no secrets, reaches it."""
    outer = os.environ if outer is None else outer
    count = str(threads)
    own = {
        "PATH": outer.get("PATH", os.defpath),
        "LANG": "C.UTF-8",
        "HOME": str(slot),
        "TMPDIR": str(slot / "tmp"),
        "MPLCONFIGDIR": str(slot / "tmp"),
        "MPLBACKEND": "svg",
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "OPENBLAS_NUM_THREADS": count,
        "NUMEXPR_NUM_THREADS": count,
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONFAULTHANDLER": "1",
    }
    if Path(sysconfig.get_path("purelib")).resolve() != _ROOT:
        own["PYTHONPATH"] = str(_ROOT)
    for name in ("CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH"):
        if name in outer:
            own[name] = outer[name]
    return own


def command(program: Sequence[str], limits: Limits) -> list[str]:
    """Arguments that start `program` (an absolute path and its arguments) under `limits`."""
    plan = {"parent": os.getpid(), "rlimits": limits.rlimits(), "umask": 0o077}
    return [sys.executable, "-I", "-S", str(_LAUNCHER), json.dumps(plan), *program]


def limit_memory(pid: int, bytes_: int) -> None:
    """Bound the address space of a running child, so that a job's own limit fits a warm child.

    What it really keeps in memory is bounded by the supervisor; this catches the single huge
    allocation before it happens. Without prlimit(2) nothing is set.
    """
    if not hasattr(resource, "prlimit"):
        return
    top = bytes_ + _IMPORTED_ADDRESS_SPACE
    resource.prlimit(pid, resource.RLIMIT_AS, (top, top))
