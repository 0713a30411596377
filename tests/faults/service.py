"""A running service under test: its parts as `secateur up` starts them, and hands to disturb them.

Parts that die are started again by `tend`, as the machine's own supervision would; that happens
while something is waited for, in this thread, because parts die with the thread that started them.
"""

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import psutil
import sqlalchemy as sa

from secateur import up
from secateur._broker import Broker, free_port
from secateur._parts import Part
from store.blobs import LocalBlobs
from store.db import Database
from store.migrate import upgrade
from store.queries import keys
from store.settings import Settings
from store.tables import Base, Job, Worker
from tests.faults.databases import Postgres, Sqlite
from tests.faults.door import Door
from tests.faults.shim import Shim

T = TypeVar("T")
FINAL = ("succeeded", "failed", "cancelled", "rejected")
QUICK, REAL = "tests.faults.app", "worker.app"
LEASE = 3.0
SHORT: dict[str, object] = {
    "threads": 1,
    "lease_seconds": LEASE,
    "heartbeat_seconds": 0.5,
    "stall_seconds": 20.0,
    "wall_seconds": 300.0,
    "kill_grace_seconds": 0.5,
    "reaper_seconds": 0.2,
    "relay_seconds": 0.05,
    "ring_again_seconds": 1.0,
    "leader_seconds": 3.0,
    "sweep_seconds": 1.0,
    "put_off_first_seconds": 0.5,
    "put_off_longest_seconds": 3.0,
    "database_wait_seconds": 4.0,
    "database_answer_seconds": 8.0,
    "storage_reserve_bytes": 1 << 20,
}
# The quick child imports nothing, so less is enough for it.
_OF_QUICK = {"SECATEUR_STALL_SECONDS": "3", "SECATEUR_CHILD_MEMORY_BYTES": str(512 << 20)}
_POLL = 0.02
_LIBC = ctypes.CDLL(None, use_errno=True)
_TMPFS_BYTES = 512 << 20


class NotHeldError(AssertionError):
    """Something did not happen in time."""


class Service:
    """Broker, API, control, a pool for checks and one for jobs, over a database, in a folder.

    Args:
        folder: For data, logs, everything.
        database: Where its rows are.
        shim: What makes storage fail, if the machine has it.
        workers: Processes in the pool for jobs.
        small_disk: Whether the data lie in a file system of their own of half a GiB.
        settings: Changes to `SHORT`.
    """

    def __init__(
        self,
        folder: Path,
        database: Sqlite | Postgres,
        shim: Shim | None,
        *,
        workers: int = 2,
        small_disk: bool = False,
        settings: Mapping[str, object] = MappingProxyType({}),
    ) -> None:
        self.folder, self.database, self.shim, self.workers = folder, database, shim, workers
        self.away: set[str] = set()
        """Parts that `tend` leaves dead."""
        self.parts: dict[str, Part] = {}
        self.ended: dict[str, int | None] = {}
        """Exit codes of the parts after `stop`."""
        self._data = folder / "data"
        self._data.mkdir(parents=True)
        self.small_disk = small_disk and self._mount()
        self._port = free_port()
        self.settings = Settings(
            data_dir=self._data,
            database_url=database.url(self._data),
            port=self._port,
            **(SHORT | dict(settings)),  # type: ignore[arg-type]
        )
        # Read-only for others: PostgreSQL's user goes through it to the shim.
        folder.chmod(0o755)
        upgrade(self.settings)
        self.db = Database(self.settings)
        self.blobs = LocalBlobs(self.settings.blob_dir)
        self._broker = Broker(self._data)
        self.settings.redis_url = self._broker.url
        secrets = [self._project(name) for name in ("first", "second")]
        url = f"http://127.0.0.1:{self._port}"
        self.door, self.other = (Door(self, url, owner, key) for owner, key in secrets)

    def _mount(self) -> bool:
        options = f"size={_TMPFS_BYTES}".encode()
        return not _LIBC.mount(b"secateur-faults", os.fsencode(self._data), b"tmpfs", 0, options)

    def _project(self, name: str) -> tuple[str, str]:
        with self.db.write() as session:
            project = keys.create_project(session, name)
            return project.id, keys.create_key(session, project.id, name)[1]

    def start(self) -> None:
        """Start all parts, and upload what jobs need."""
        logs = self.folder / "logs"
        logs.mkdir()
        # All of them, so that nothing of the machine's own environment decides.
        given = {k: v for k, v in os.environ.items() if not k.startswith("SECATEUR_")}
        known = self.settings.model_dump(exclude_defaults=True)
        given |= {f"SECATEUR_{name.upper()}": str(value) for name, value in known.items()}
        given |= {"PYTHONUNBUFFERED": "1"} | (self.shim.environment if self.shim else {})
        broker = self._broker.part(logs / "valkey.log")
        broker.start()
        self._broker.wait(broker)
        parts = up._own_parts(given, "127.0.0.1", self._port, self.workers, logs)
        self.parts = {part.name: part for part in (broker, *parts)}
        self.run_children("quick")
        for part in parts:
            part.start()
        self.until(self.door.ready, 60, "the API's first answer")
        self.door.upload_inputs()
        self.other.upload_inputs()

    # waiting

    def tend(self) -> None:
        """Start again what died."""
        for name, part in self.parts.items():
            if name not in self.away and not part.running:
                part.start()

    def until(self, look: Callable[[], T], seconds: float, what: str) -> T:
        """Wait until `look` gives something true.

        Raises:
            NotHeldError: It did not within so many seconds.
        """
        deadline = time.monotonic() + seconds
        while True:
            self.tend()
            if found := look():
                return found
            if time.monotonic() > deadline:
                raise NotHeldError(f"{what} did not happen within {seconds:g} s")
            time.sleep(_POLL)

    def rest(self, seconds: float) -> None:
        """Let time go by."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.tend()
            time.sleep(min(_POLL, left))

    # what the store knows

    def rows(self, table: type[Base], **equal: Any) -> list[Any]:
        """Rows in the order of their keys, read anew after a database came back."""
        query = sa.select(table).filter_by(**equal).order_by(*table.__table__.primary_key)
        deadline = time.monotonic() + 20
        while True:
            try:
                with self.db.read() as session:
                    return list(session.scalars(query))
            except sa.exc.DBAPIError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def job(self, job_id: str) -> Job:
        found: Job = self.rows(Job, id=job_id)[0]
        return found

    def state(self, job_id: str, *states: str) -> Callable[[], Job | None]:
        """A look for `until`: the job, once it is in one of the states."""

        def look() -> Job | None:
            job = self.job(job_id)
            return job if job.state in states else None

        return look

    def ends(self, job_id: str, seconds: float = 60.0) -> Job:
        """Wait until a job is over."""
        return self.until(self.state(job_id, *FINAL), seconds, f"the end of {job_id}")

    def runs(self, job_id: str, seconds: float = 30.0) -> Job:
        """Wait until a job runs, or is over already."""
        return self.until(self.state(job_id, "running", *FINAL), seconds, f"the start of {job_id}")

    # processes

    def main(self, name: str) -> psutil.Process:
        """The main process of a part."""
        process = self.parts[name].process
        assert process is not None
        return psutil.Process(process.pid)

    def pools(self, name: str = "jobs") -> list[psutil.Process]:
        """Pool processes of a worker."""
        with suppress(psutil.NoSuchProcess):
            return self.main(name).children()
        return []

    def up(self, name: str) -> None:
        """Wait until a worker's pool says that it lives: before, it does not hear a SIGTERM."""

        def there() -> bool:
            process = self.parts[name].process
            mark = f":{process.pid}." if process else ""
            return any(mark in row.name for row in self.rows(Worker))

        self.until(there, 60, f"the pool of {name}")

    def holder(self, job_id: str) -> psutil.Process | None:
        """The pool process that holds a job."""
        worker = self.job(job_id).worker_id
        if worker is None:
            return None
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(int(worker.rsplit(":", 1)[1]))
        return None

    def children(self, job_id: str) -> list[psutil.Process]:
        """The children of the pool process that holds a job, older ones first."""
        with suppress(psutil.NoSuchProcess):
            if (holder := self.holder(job_id)) is not None:
                return sorted(holder.children(), key=lambda p: p.create_time())
        return []

    def signal(self, processes: psutil.Process | list[psutil.Process], number: int) -> None:
        """Signal processes, some of which may be gone."""
        for process in processes if isinstance(processes, list) else [processes]:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def kill(self, name: str) -> None:
        """SIGKILL to a part's main process."""
        self.parts[name].signal(signal.SIGKILL)
        self.gone(name)

    def gone(self, name: str, seconds: float = 20.0) -> int:
        """Wait for the end of a part; its exit code.

        Raises:
            NotHeldError: It goes on.
        """
        process = self.parts[name].process
        assert process is not None
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise NotHeldError(f"{name} still runs after {seconds:g} s") from error

    @contextmanager
    def stopped(self, processes: list[psutil.Process]) -> Iterator[None]:
        """Inside, the processes stand still."""
        self.signal(processes, signal.SIGSTOP)
        try:
            yield
        finally:
            self.signal(processes, signal.SIGCONT)

    def run_children(self, kind: str) -> None:
        """Have the pool for jobs run the `quick` child or the `real` one; it is started anew."""
        app = QUICK if kind == "quick" else REAL
        part = self.parts["jobs"]
        command = [app if word in (QUICK, REAL) else word for word in part.command]
        if list(part.command) == command:
            return
        part.command = command
        rest = {k: v for k, v in part.environment.items() if k not in _OF_QUICK}
        part.environment = rest | (_OF_QUICK if kind == "quick" else {})
        if part.running:
            part.signal(signal.SIGTERM)
            self.gone("jobs")
            part.start()

    # the end

    def stop(self) -> float:
        """End all parts in order; seconds it took. Exit codes are in `ended`."""
        for name in ("checks", "jobs"):
            self.up(name)
        began = time.monotonic()
        for names in (("checks", "jobs"), ("control", "api"), ("valkey",)):
            for name in names:
                self.parts[name].signal(signal.SIGTERM)
            for name in names:
                with suppress(NotHeldError):
                    self.ended[name] = self.gone(name, 15.0)
        return time.monotonic() - began

    def left_processes(self) -> list[str]:
        """Processes that still carry this service's folder in their environment."""
        mark = os.fsencode(self._data)
        found = []
        for process in psutil.process_iter():
            with suppress(OSError, psutil.NoSuchProcess):
                environ = Path(f"/proc/{process.pid}/environ").read_bytes()
                if mark in environ and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(f"{process.pid} {' '.join(process.cmdline())[:120]}")
        return found

    def log(self, lines: int = 12) -> str:
        """The end of each part's log."""
        found = []
        for path in sorted((self.folder / "logs").glob("*.log")):
            text = path.read_text(errors="replace").splitlines()
            found.append(f"== {path.name}\n" + "\n".join(text[-lines:]))
        return "\n".join(found)

    def close(self) -> None:
        """Kill what is left, and let go."""
        if self.shim is not None:
            self.shim.disarm()
            self.shim.clock = 0.0
        for part in self.parts.values():
            part.kill()
        self.door.close()
        self.other.close()
        self.db.dispose()
        if self.small_disk:
            _LIBC.umount2(os.fsencode(self._data), 2)
