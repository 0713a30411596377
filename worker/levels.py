"""Which level of sandbox is in force here: what was asked for, what the machine has, what works.

A level counts only once a child at that level has been seen to write to its slot and to fail at
everything else that is tried.
"""

import functools
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import sqlalchemy as sa

from pruning.errors import SecateurError
from store.settings import Settings
from worker import landlock, seccomp
from worker.reach import gpu_nodes, reach
from worker.sandbox import Limits, Sandbox, environment

log = logging.getLogger(__name__)

Wanted = Literal["required", "best", "off"]
# Version 1 lets no file move between folders, and jobs move what they have written.
OLDEST_LANDLOCK = 2
_SHOWN = 300
_TRIAL_SECONDS = 20.0
_TRIAL = """
import ctypes, os, sys, _socket
libc = ctypes.CDLL(None, use_errno=True)
def fails(act):
    try:
        act()
    except OSError:
        return
    os.write(1, b"the sandbox lets through: " + act.__name__.encode())
    os._exit(3)
def a_socket(): _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
def a_process(): os.fork()
def shared_memory():
    made = libc.shmget(0, 4096, 0o1600)
    if made < 0:
        raise OSError(ctypes.get_errno(), "refused")
    libc.shmctl(made, 0, None)
def the_users(): os.open("/etc/passwd", os.O_RDONLY)
def writing(): os.open("/tmp", os.O_WRONLY | os.O_TMPFILE)
for act in (a_socket, a_process, shared_memory):
    fails(act)
if os.environ["SECATEUR_SANDBOX"] != "limits":
    for act in (the_users, writing):
        fails(act)
os.mkdir("written")
"""


@dataclass(frozen=True)
class Means:
    """What a machine has to build a sandbox from.

    Args:
        landlock: Version of Landlock, 0 for none.
        seccomp: Whether system calls can be filtered.
        bubblewrap: Path of the program, None where it is not installed.
    """

    landlock: int
    seccomp: bool
    bubblewrap: str | None


def means() -> Means:
    """What this machine has."""
    return Means(landlock.version(), seccomp.available(), shutil.which("bwrap"))


def choose(
    wanted: Wanted,
    *,
    has: Means | None = None,
    gpu: bool = False,
    more: Sequence[str] = (),
    private: Sequence[Path] = (),
) -> Sandbox:
    """The strongest sandbox that works here.

    Args:
        wanted: `required` for nothing less than Landlock and seccomp, `best` for what there is,
            `off` for resource limits alone.
        has: What to build from, this machine's by default.
        gpu: Whether GPUs are to pass through.
        more: Further paths that children may read.
        private: Folders that no child may read, whatever `more` says.

    Raises:
        SecateurError: `sandbox_unavailable` where it is required and can't be had.
    """
    if wanted == "off":
        return Sandbox(gpu=gpu, more=tuple(more))
    has = has or means()
    if has.landlock < OLDEST_LANDLOCK:
        has = replace(has, landlock=0)
    why: list[str] = []
    found = _strongest(has, gpu, tuple(more), private, why)
    reason = "; ".join(why)
    if found.level == "limits" and wanted == "required":
        raise SecateurError(
            "sandbox_unavailable",
            f"Children can't be closed off from this machine: {reason}.",
            where="SECATEUR_SANDBOX",
            hint="Install bubblewrap, or use Linux 5.19 or newer with Landlock, and allow either "
            "in the container (docs/sandbox.md); SECATEUR_SANDBOX=best runs without.",
        )
    return replace(found, reason=reason)


def sandbox_of(settings: Settings, *, checks: bool = False) -> Sandbox:
    """The sandbox of a worker with these settings.

    Args:
        settings: The service's settings.
        checks: Whether it serves intake checks alone, which no GPU is needed for.

    Raises:
        SecateurError: `sandbox_unavailable`.
    """
    chosen = choose(
        settings.sandbox,
        gpu=settings.device != "cpu" and not checks and bool(gpu_nodes()),
        more=tuple(filter(None, settings.sandbox_read.split(os.pathsep))),
        private=_private(settings),
    )
    if chosen.level == "limits" and settings.sandbox != "off":
        log.warning("children run with resource limits alone: %s", chosen.reason)
    return chosen


def _private(settings: Settings) -> list[Path]:
    url = sa.make_url(settings.database_url)
    file = [Path(url.database)] if url.get_backend_name() == "sqlite" and url.database else []
    return [settings.data_dir, settings.blob_dir, settings.slots_dir, *file]


def _strongest(
    has: Means, gpu: bool, more: tuple[str, ...], private: Sequence[Path], why: list[str]
) -> Sandbox:
    limits = Sandbox("limits", gpu=gpu, more=more)
    if not has.seccomp:
        why.append("this kernel or container does not filter system calls (seccomp)")
        return limits
    filtered = replace(limits, seccomp=True)
    candidates = []
    if has.bubblewrap:
        candidates.append(
            Sandbox("bubblewrap", "", has.landlock, True, has.bubblewrap, gpu=gpu, more=more)
        )
    else:
        why.append("bubblewrap is not installed")
    if has.landlock:
        candidates.append(replace(filtered, level="landlock", abi=has.landlock))
    for sandbox in candidates:
        problem = _trial(sandbox)
        if problem is None:
            return _named_by_what_it_shows(sandbox, private, why)
        why.append(f"{sandbox.level} does not work here: {problem}")
    if not has.landlock:
        why.append("this kernel or container has no Landlock, or an early version")
    return limits if _trial(filtered) else filtered


def _named_by_what_it_shows(sandbox: Sandbox, private: Sequence[Path], why: list[str]) -> Sandbox:
    """The sandbox, but as `limits` where the service's own data lie in what children read."""
    open_to = reach([sys.executable], gpu=sandbox.gpu, more=sandbox.more)
    for path in private:
        if (folder := open_to.shows(path)) is not None:
            why.append(f"the service keeps {path}, and children read {folder}")
            return replace(sandbox, level="limits")
    return sandbox


@functools.lru_cache(maxsize=16)
def _trial(sandbox: Sandbox) -> str | None:
    """Run a child at this level; what is wrong with it, or None."""
    program = [sys.executable, "-I", "-S", "-c", _TRIAL]
    limits = Limits(threads=1, cpu_seconds=10, file_bytes=1 << 20)
    with tempfile.TemporaryDirectory(prefix="secateur-trial-") as folder:
        slot = Path(os.path.realpath(folder))
        (slot / "tmp").mkdir()
        try:
            ended = subprocess.run(
                sandbox.command(program, limits, slot),
                cwd=slot,
                env=environment(slot, 1, level=sandbox.level),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=_TRIAL_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)[:_SHOWN]
        said = ended.stdout.decode(errors="replace").strip().splitlines()
        if ended.returncode != 0:
            return (said[-1] if said else f"exit code {ended.returncode}")[:_SHOWN]
        return None if (slot / "written").is_dir() else "its folder can't be written"
