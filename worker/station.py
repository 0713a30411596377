"""The worker's life as Celery's signals tell it: one main process, pool processes forked from it.

SIGTERM to the main process asks for a warm shutdown: it waits for its pool processes, which hear
nothing of it. So the main process leaves a file that supervisors look for, and they give their
jobs back. `SECATEUR` settings decide the rest.
"""

import logging
import os
import socket
from collections.abc import Sequence
from pathlib import Path

from store import logs
from store.settings import Settings
from worker import bytecode
from worker.levels import sandbox_of
from worker.presence import Presence
from worker.slots import House, wipe_leftovers
from worker.workplace import CHECKS_PROGRAM, PROGRAM, Workplace, open_workplace

log = logging.getLogger(__name__)

program: Sequence[str] | None = None  # what children run, if not our own
_main: House | None = None
_place: Workplace | None = None
_presence: Presence | None = None
_processes = 1


def begin(settings: Settings, processes: int = 1) -> None:
    """In the main process, before any pool process: clean up, and make the drain file's place.

    Args:
        settings: The service's settings.
        processes: How many pool processes there will be.

    Raises:
        SecateurError: `sandbox_unavailable` where the settings require one.
    """
    global _main, _processes
    _processes = processes
    logs.configure(settings)
    sandbox_of(settings)
    bytecode.write()
    wipe_leftovers(settings.slots_dir)
    _main = House(settings.slots_dir)


def drain() -> None:
    """In the main process, inside its signal handler: tell the pool processes to stop."""
    if _main is not None:
        _drain_file(_main).touch()


def end() -> None:
    """In the main process, after its pool processes."""
    global _main
    if _main is not None:
        _main.close()
        _main = None


def begin_process(settings: Settings, *, only_checks: bool = False) -> None:
    """In a pool process: open its workplace and start a child ahead.

    Args:
        settings: The service's settings.
        only_checks: Whether the pool serves intake checks and nothing else.
    """
    global _place, _presence
    assert _main is not None, "the worker's main process was not set up"
    _pick_gpu()
    own = CHECKS_PROGRAM if only_checks else PROGRAM
    _place = open_workplace(
        settings,
        _drain_file(_main),
        name=_name(),
        program=program or own,
        processes=_processes,
    )
    _place.prepare()
    _presence = Presence(_place)


def end_process() -> None:
    """In a pool process that exits."""
    global _place, _presence
    if _presence is not None:
        _presence.end()
        _presence = None
    if _place is not None:
        _place.close()
        _place = None


def place(settings: Settings) -> Workplace:
    """The workplace of this process; made now in pools that fork no process of their own."""
    global _place
    if _place is None:
        if _main is None:
            begin(settings)
        begin_process(settings)
    assert _place is not None
    return _place


def _drain_file(main: House) -> Path:
    return main.folder / "drain"


def _index() -> int:
    from billiard import current_process

    return int(getattr(current_process(), "index", 0) or 0)


def _name() -> str:
    return f"{socket.gethostname()}:{os.getppid()}.{_index()}:{os.getpid()}"


def _pick_gpu() -> None:
    """One GPU for each pool process, where several are named in CUDA_VISIBLE_DEVICES."""
    named = [d for d in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if d]
    if len(named) > 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = named[_index() % len(named)]
