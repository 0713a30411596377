"""Slot folders: the one place on disk that a child works in, made for it and wiped after it.

Every process that starts children has a house of its own under the slots folder and holds a lock on
it, so that another process can tell a house in use from one whose owner died.
"""

import fcntl
import json
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker import processes

log = logging.getLogger(__name__)

_FOLDERS = ("inputs", "checkpoints", "tmp")  # the run makes `out` itself, once it is complete


@dataclass(frozen=True)
class Occupant:
    """What the owner of a house says of it, for others on the machine.

    Args:
        cpus: The processors that jobs in it will keep busy; none where no job will be in it.
        weight: Its share of the memory, beside that of others; 0 where no child will be in it.
        ahead: Children that may be started ahead in it.
    """

    cpus: frozenset[int] = frozenset()
    weight: int = 0
    ahead: int = 0

    def dump(self) -> bytes:
        """As JSON."""
        return json.dumps([sorted(self.cpus), self.weight, self.ahead]).encode()

    @classmethod
    def load(cls, text: bytes) -> "Occupant":
        """The inverse.

        Raises:
            ValueError: It says something else.
            TypeError: The same.
        """
        cpus, weight, ahead = json.loads(text)
        return cls(frozenset(map(int, cpus)), int(weight), int(ahead))


@dataclass(frozen=True)
class Slot:
    """A folder for one child: inputs, checkpoints, tmp; then job.json, and `out` at the end."""

    folder: Path

    @property
    def job(self) -> Path:
        """Where the child's request is written."""
        return self.folder / "job.json"

    def wipe(self) -> None:
        """Remove the folder and end what still runs on it."""
        processes.sweep(self.folder)
        _remove(self.folder)


class House:
    """The slots of one process.

    Args:
        root: The slots folder, shared by the processes of one machine.
        occupant: What it tells others of itself.
    """

    def __init__(self, root: Path, occupant: Occupant = Occupant()) -> None:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.root = root
        with _guarded(root):
            self.folder = root / f"{os.getpid()}-{secrets.token_hex(4)}"
            self.folder.mkdir(mode=0o700)
            self._lock = os.open(self.folder / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            os.write(self._lock, occupant.dump())

    def slot(self) -> Slot:
        """A new empty slot."""
        folder = self.folder / f"slot-{secrets.token_hex(4)}"
        folder.mkdir(mode=0o700)
        for name in _FOLDERS:
            (folder / name).mkdir(mode=0o700)
        return Slot(folder)

    def close(self) -> None:
        """Give the house up."""
        processes.sweep(self.folder)
        with _guarded(self.root):
            _remove(self.folder)
            os.close(self._lock)


def occupants(root: Path) -> list[Occupant]:
    """What the owner of each house under the slots folder that lives said of it."""
    found = []
    with _guarded(root):
        for folder in root.iterdir():
            if folder.is_dir() and not folder.is_symlink() and not _abandoned(folder):
                with suppress(OSError, ValueError, TypeError):
                    found.append(Occupant.load((folder / "lock").read_bytes()))
    return found


def wipe_leftovers(root: Path) -> int:
    """Remove the houses whose owners died, and return how many there were."""
    if not root.is_dir():
        return 0
    count = 0
    with _guarded(root):
        for folder in root.iterdir():
            if folder.is_dir() and not folder.is_symlink() and _abandoned(folder):
                processes.sweep(folder)
                _remove(folder)
                count += 1
    if count:
        log.info("wiped %d slot folders of dead processes", count)
    return count


def _abandoned(house: Path) -> bool:
    try:
        lock = os.open(house / "lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True


@contextmanager
def _guarded(root: Path) -> Iterator[None]:
    """Keep making and wiping of houses apart: a house is unlocked for a moment after mkdir."""
    guard = os.open(root / ".guard", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(guard, fcntl.LOCK_EX)
        yield
    finally:
        os.close(guard)


def _remove(folder: Path) -> None:
    def open_up(function: Callable[..., Any], path: str, _error: Any) -> None:
        # The child may have taken its own permissions away.
        os.chmod(os.path.dirname(path), 0o700)
        if not os.path.islink(path):
            os.chmod(path, 0o700)
        function(path)

    try:
        shutil.rmtree(folder, onerror=open_up)
    except FileNotFoundError:
        return
    except OSError as error:
        log.warning("could not remove %s: %s", folder, error)
