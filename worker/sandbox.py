"""What every child gets before its program starts, and the name of that level.

Always: resource limits, a cleared environment, no new privileges, death with the parent, a session
of its own. Levels beyond that, from the weakest:

- `limits`: nothing more; files and network of the worker's user are open to the child.
- `landlock`: no capabilities, no path but those of `worker.reach` and the slot (Landlock), no
  sockets, processes or signals to others (seccomp).
- `bubblewrap`: the same, in namespaces of its own in which other files, processes and networks
  do not exist.

`worker.levels` decides which one is in force.
"""

import json
import os
import resource
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from pruning.threads import variables
from worker import landlock, processes
from worker.reach import ROOT, Reach, reach

Level = Literal["bubblewrap", "landlock", "limits"]

_LAUNCHER = Path(__file__).with_name("launch.py")
# Mapped but never touched: program code, thread stacks and allocator arenas of an imported torch.
_IMPORTED_ADDRESS_SPACE = 4 << 30
_CUDA_LIBRARIES = 16 << 30  # mapped by a build of torch for GPUs, also where none is used
# Sizes up to which glibc, and no other C library, keeps freed memory. It gives a matrix of 45 MB
# back at once, and the kernel clears every page of the next one: a sixth of the time of OBS on
# 2,368 weights.
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": 128 << 20, "MALLOC_TRIM_THRESHOLD_": 256 << 20}
# bubblewrap says 128 + n where its child was ended by signal n.
_SIGNALLED = 128


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
            "RLIMIT_MSGQUEUE": 0,
            "RLIMIT_NOFILE": self.open_files,
        }


@dataclass(frozen=True)
class Sandbox:
    """The level that children run at, and what it takes.

    Args:
        level: Its name.
        reason: Why it is no stronger one; empty for the strongest and where it was asked for.
        abi: Version of Landlock to use, 0 for none.
        seccomp: Whether system calls are filtered.
        bubblewrap: Path of the program at level `bubblewrap`.
        gpu: Whether GPUs pass through.
        more: Further paths that children may read.
    """

    level: Level = "limits"
    reason: str = ""
    abi: int = 0
    seccomp: bool = False
    bubblewrap: str | None = None
    gpu: bool = False
    more: tuple[str, ...] = ()

    def command(self, program: Sequence[str], limits: Limits, slot: Path) -> list[str]:
        """Arguments that start `program` (an absolute path and its arguments) on a slot."""
        open_to = reach([*program, str(_LAUNCHER)], gpu=self.gpu, more=self.more)
        # Seen from inside its process namespace, bubblewrap's first process is the parent.
        parent = 1 if self.bubblewrap else os.getpid()
        closed = self.abi > 0 or self.seccomp
        plan = {
            "parent": parent,
            "rlimits": limits.rlimits(),
            "umask": 0o077,
            "powerless": closed,
            "landlock": self._files(open_to, slot) if self.abi else None,
            # CUDA binds one, for other processes that share its memory.
            "seccomp": {"gpu": bool(open_to.gpu)} if self.seccomp else None,
        }
        launch = [sys.executable, "-I", "-S", str(_LAUNCHER), json.dumps(plan), *program]
        if self.bubblewrap is None:
            return launch
        return [self.bubblewrap, *_namespaces(open_to, slot), "--", *launch]

    def _files(self, open_to: Reach, slot: Path) -> dict[str, Any]:
        allowed = [(path, landlock.READABLE) for path in (*open_to.files, *open_to.proc)]
        allowed += [(path, landlock.LISTED) for path in open_to.listed]
        allowed += [(path, landlock.DEVICE) for path in open_to.devices]
        return {"abi": self.abi, "allowed": [*allowed, (str(slot), landlock.WRITABLE)]}

    def exit_code(self, code: int | None) -> int | None:
        """The program's exit code, minus the signal's number after a signal.

        Args:
            code: That of the process that `command` started.
        """
        if self.bubblewrap and code is not None and code > _SIGNALLED:
            return _SIGNALLED - code
        return code


def _namespaces(open_to: Reach, slot: Path) -> list[str]:
    """Options of bubblewrap: an empty root, with what the child may see put into it."""
    options = ["--unshare-all", "--die-with-parent", "--cap-drop", "ALL", "--proc", "/proc"]
    options += ["--dev", "/dev"]
    for path in open_to.gpu:
        options += ["--dev-bind", path, path]
    for path in open_to.files:
        if os.path.islink(path) and os.path.dirname(path) == "/":
            options += ["--symlink", os.readlink(path), path]
        else:
            options += ["--ro-bind", path, path]
    options += ["--bind", str(slot), str(slot), "--chdir", str(slot)]
    return [*options, "--remount-ro", "/dev", "--remount-ro", "/"]


def environment(
    slot: Path, threads: int, outer: Mapping[str, str] | None = None, level: Level = "limits"
) -> dict[str, str]:
    """The child's whole environment: nothing of the worker's own, so no secrets, reaches it."""
    outer = os.environ if outer is None else outer
    own = variables(threads, outer) | {
        "PATH": outer.get("PATH", os.defpath),
        "LANG": "C.UTF-8",
        "HOME": str(slot),
        "TMPDIR": str(slot / "tmp"),
        # Libraries ask for a user's name; the list of users is out of reach.
        "USER": "secateur",
        "MPLCONFIGDIR": str(slot / "tmp"),
        "MPLBACKEND": "svg",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONFAULTHANDLER": "1",
        "SECATEUR_SANDBOX": level,
    }
    own |= {name: outer.get(name, str(size)) for name, size in _MALLOC.items()}
    if Path(sysconfig.get_path("purelib")).resolve() != ROOT:
        own["PYTHONPATH"] = str(ROOT)
    for name in ("CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH"):
        if name in outer:
            own[name] = outer[name]
    return own


def imported_address_space() -> int:
    """Bytes of address space that a child takes before it has read anything."""
    return _IMPORTED_ADDRESS_SPACE + (_CUDA_LIBRARIES if find_spec("nvidia") else 0)


def limit_memory(leader: int, bytes_: int) -> None:
    """Bound the address space of a running child, so that a job's own limit fits a warm child.

    What it really keeps in memory is bounded by `worker.watch`; this catches the single huge
    allocation before it happens, and growth that is faster than a look. Libraries for GPUs map
    far more, but share it with files. Without prlimit(2) nothing is set.

    Args:
        leader: The process that was started; at level `bubblewrap` the child is a grandchild.
        bytes_: What the job may have.
    """
    if not hasattr(resource, "prlimit"):
        return
    tops = {
        resource.RLIMIT_AS: bytes_ + imported_address_space(),
        resource.RLIMIT_DATA: bytes_ + _IMPORTED_ADDRESS_SPACE,
    }
    bound: set[int] = set()
    # Limits are inherited: once nobody new has turned up, everybody has them.
    while new := {leader, *(processes.of_group(leader) if processes.visible() else ())} - bound:
        for pid in new:
            with suppress(ProcessLookupError):  # it ended, which its supervisor sees
                for limit, top in tops.items():
                    resource.prlimit(pid, limit, (top, top))
        bound |= new
