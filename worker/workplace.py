"""What one worker process works with: store, blobs, slots, and the children started ahead."""

import logging
import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pruning.threads import cores as available
from pruning.threads import cpus
from store.blobs import Blobs, LocalBlobs
from store.db import Database
from store.settings import Settings
from worker import cores, memory
from worker.levels import sandbox_of
from worker.process import Child
from worker.sandbox import Limits, Sandbox
from worker.slots import House, Occupant, wipe_leftovers

log = logging.getLogger(__name__)

# -P: what lies in the slot folder, the child's working directory, is never imported.
_CHILD = (sys.executable, "-P", "-m", "worker.child")
PROGRAM = (*_CHILD, "prune")
CHECKS_PROGRAM = (*_CHILD, "checks")  # where no other jobs come
VERIFY_PROGRAM = (*_CHILD, "verify")  # for the second half of a pruning
_BYTES_PER_OUTPUT = 64 << 30


@dataclass
class Workplace:
    """Everything an attempt needs that outlives it. Belongs to one process and its main thread.

    A child dies with the thread that started it, so children are started from the main thread.

    Args:
        settings: The service's settings.
        db: The database.
        blobs: Where inputs come from and artifacts go.
        house: This process's slots.
        worker_id: Who claims.
        drain: A file whose existence means: stop now, give running jobs back.
        program: What a child runs, as an absolute path and arguments.
        sandbox: What children run in.
        processes: How many processes like this one share the machine.
    """

    settings: Settings
    db: Database
    blobs: Blobs
    house: House
    worker_id: str
    drain: Path
    program: Sequence[str] = PROGRAM
    sandbox: Sandbox = field(default_factory=Sandbox)
    processes: int = 1
    _parent: int = field(default_factory=os.getppid)
    _warm: list[Child] = field(default_factory=list)

    @property
    def draining(self) -> bool:
        """True once the worker is to stop, or its own parent is gone."""
        return self.drain.exists() or os.getppid() != self._parent

    @property
    def output_bytes(self) -> int:
        """Size of the largest file a child may write."""
        return _BYTES_PER_OUTPUT

    @property
    def memory_bytes(self) -> int | None:
        """Memory that the next attempt may keep, None where nothing is known of the machine's."""
        return self.settings.child_memory_bytes or memory.share(
            self.house.root, self.processes, self._weight
        )

    @property
    def _weight(self) -> int:
        return memory.CHECKS if tuple(self.program) == CHECKS_PROGRAM else memory.JOBS

    @property
    def _programs(self) -> list[tuple[str, ...]]:
        """Those of the children that one job needs: a pruning has two, one after the other."""
        own = tuple(self.program)
        if own == CHECKS_PROGRAM:
            return [own]
        return [own, VERIFY_PROGRAM if own == PROGRAM else own]

    def threads(self) -> int:
        """Threads of the next job: those of the settings, or this process's share of the cores."""
        return self.settings.threads or cores.share(self.house.root, self.processes)

    def child(self, threads: int | None = None, *, second: bool = False) -> Child:
        """A child for one request: one started ahead that still lives, or a new one.

        Args:
            threads: Of the job, which its libraries are told before they are loaded.
            second: Whether it is the job's second, which verifies. Each can do the other's work,
                but has not imported all that it takes.
        """
        threads = threads or self.threads()
        program = self._programs[-1 if second else 0]
        for warm in sorted(self._warm, key=lambda child: child.program != program):
            self._warm.remove(warm)
            if warm.returncode is not None:
                log.warning("the child started ahead had died:\n%s", warm.log)
            elif warm.threads == threads:
                return warm
            discard(warm)
        return self._start(threads, program)

    def prepare(self) -> None:
        """Start children ahead, as many as a job needs, if the settings want that.

        Where that fails, as on a full disk, the next job only takes longer to begin.
        """
        missing = self._programs
        for warm in self._warm:
            if warm.program in missing:
                missing.remove(warm.program)
        for program in missing:
            if self.settings.warm_children and not self.draining:
                try:
                    self._warm.append(self._start(self.threads(), program))
                except OSError as error:
                    log.warning("no child can be started ahead: %s", error)
                    return

    def _start(self, threads: int, program: Sequence[str]) -> Child:
        slot = self.house.slot()
        limits = Limits(
            threads=threads,
            # CPU time counts every thread; the wall limit is the supervisor's to keep.
            cpu_seconds=int(self.settings.wall_seconds * (available() + 1)) + 60,
            file_bytes=self.output_bytes,
        )
        try:
            return Child(slot, program, limits, self.sandbox)
        except BaseException:
            slot.wipe()
            raise

    def close(self) -> None:
        """End the children started ahead and give up the slots."""
        while self._warm:
            discard(self._warm.pop())
        self.house.close()
        self.db.dispose()


def discard(child: Child, grace: float = 0.0) -> bool:
    """End a child and wipe its slot.

    Returns:
        True once nothing of it lives.
    """
    gone = child.end(grace)
    child.close()
    child.slot.wipe()
    return gone


def open_workplace(
    settings: Settings,
    drain: Path,
    *,
    name: str | None = None,
    program: Sequence[str] = PROGRAM,
    processes: int = 1,
) -> Workplace:
    """A workplace for this process; what dead processes left behind is wiped first.

    Raises:
        SecateurError: `sandbox_unavailable` where the settings require one.
    """
    checks = tuple(program) == CHECKS_PROGRAM
    closed = sandbox_of(settings, checks=checks)
    wipe_leftovers(settings.slots_dir)
    return Workplace(
        settings=settings,
        db=Database(settings),
        blobs=LocalBlobs(settings.blob_dir),
        house=House(settings.slots_dir, _occupant(settings, checks=checks)),
        worker_id=name or f"{socket.gethostname()}:{os.getpid()}",
        drain=drain,
        program=program,
        sandbox=closed,
        processes=processes,
    )


def _occupant(settings: Settings, *, checks: bool) -> Occupant:
    ahead = (1 if checks else 2) if settings.warm_children else 0
    if checks:
        # They are short: jobs do not leave cores to them.
        return Occupant(weight=memory.CHECKS, ahead=ahead)
    return Occupant(cpus(), memory.JOBS, ahead)
