"""What drivers and the kernel raise when a disk or a database fails has the code that fits."""

import contextlib
import errno
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from store import failures
from store.blobs import LocalBlobs, put
from store.db import Database
from store.queries import keys
from store.settings import Settings


@pytest.fixture
def sqlite(migrated_sqlite: Path, tmp_path: Path) -> Path:
    """A database of the test's own."""
    for part in migrated_sqlite.parent.glob(f"{migrated_sqlite.name}*"):
        shutil.copy(part, tmp_path)
    return tmp_path / migrated_sqlite.name


def code(error: BaseException) -> str | None:
    told = failures.told(error)
    return told and told.code


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, "storage_full"),
        (errno.EDQUOT, "storage_full"),
        (errno.EFBIG, "storage_full"),
        (errno.EIO, "unavailable"),
        (errno.EROFS, "unavailable"),
        (errno.EMFILE, "unavailable"),
        (errno.ENOENT, None),
        (errno.EPIPE, None),
    ],
)
def test_errors_of_the_disk(number: int, expected: str | None) -> None:
    assert code(OSError(number, "")) == expected


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another process holds the write lock."""
    program = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "c.execute('BEGIN IMMEDIATE'); print(flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-S", "-c", program, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    holder.stdout.readline()
    yield
    holder.stdin.close()
    holder.wait(10)
    holder.stdout.close()


def test_sqlite_that_stays_locked_is_busy_and_reads_go_on(sqlite: Path) -> None:
    settings = Settings(data_dir=sqlite.parent, database_wait_seconds=0.2)
    database = Database(settings)
    with locked(sqlite):
        with database.read() as session:
            session.execute(sa.text("SELECT 1"))
        with pytest.raises(DBAPIError) as refused, database.write() as session:
            keys.create_project(session, "p")
    assert code(refused.value) == "database_busy"
    with database.write() as session:
        keys.create_project(session, "p")
    database.dispose()


def write_much(database: Database) -> None:
    with database.write() as session:
        for _ in range(100):
            keys.create_project(session, "x" * 5000)


def test_sqlite_without_room_is_full(sqlite: Path) -> None:
    database = Database(Settings(data_dir=sqlite.parent))

    def small(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute("PRAGMA max_page_count = 1")  # is raised to the pages there are

    sa.event.listen(database.engine, "connect", small)
    with pytest.raises(DBAPIError) as refused:
        write_much(database)
    assert code(refused.value) == "storage_full"
    database.dispose()


def test_sqlite_whose_file_can_not_grow_answers_again_once_it_can(sqlite: Path) -> None:
    database = Database(Settings(data_dir=sqlite.parent))
    with pytest.raises(DBAPIError) as refused, largest_file(1 << 12):
        write_much(database)
    assert code(refused.value) in ("storage_full", "unavailable")
    with database.write() as session:
        keys.create_project(session, "p")
    database.dispose()


def test_a_write_inside_a_read_is_our_own_error(empty) -> None:
    with pytest.raises(DBAPIError) as refused, empty.database.read() as session:
        keys.create_project(session, "p")
    assert code(refused.value) is None


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Files of this process end at so many bytes, as a quota has it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_blob_that_finds_no_room_leaves_nothing(tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path / "blobs")
    with pytest.raises(OSError) as refused, largest_file(1 << 16):
        put(blobs, [bytes(1 << 20)])
    assert code(refused.value) == "storage_full"
    left = [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]
    assert [path.name for path in left if path.name != ".lock"] == []


@pytest.fixture
def postgres(postgres_url) -> Iterator[Database]:
    database = Database(Settings(database_url=postgres_url(), database_wait_seconds=0.2))
    yield database
    database.dispose()


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("53100", "storage_full"),
        ("40001", "database_busy"),
        ("40P01", "database_busy"),
        ("57014", "database_busy"),
        ("53300", "database_busy"),
        ("57P01", "unavailable"),
        ("58030", "unavailable"),
        ("08006", "unavailable"),
        ("23505", None),
        ("42P01", None),
    ],
)
def test_states_of_postgresql(postgres: Database, state: str, expected: str | None) -> None:
    raised = f"DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '{state}'; END $$"
    with pytest.raises(DBAPIError) as refused, postgres.write() as session:
        session.execute(sa.text(raised))
    assert code(refused.value) == expected


def test_postgresql_that_stays_locked_is_busy(postgres: Database) -> None:
    with postgres.write() as session:
        session.execute(sa.text("CREATE TABLE t (a int)"))
    with postgres.write() as holder:
        holder.execute(sa.text("LOCK TABLE t IN ACCESS EXCLUSIVE MODE"))
        with pytest.raises(DBAPIError) as refused, postgres.read() as session:
            session.execute(sa.text("SELECT * FROM t"))
    assert code(refused.value) == "database_busy"


def test_a_connection_that_postgresql_ends_is_unavailable(postgres: Database) -> None:
    def cut_off() -> None:
        with postgres.write() as session:
            own = session.scalar(sa.text("SELECT pg_backend_pid()"))
            with postgres.write() as other:
                other.execute(sa.text(f"SELECT pg_terminate_backend({own})"))
            session.execute(sa.text("SELECT 1"))

    with pytest.raises(DBAPIError) as refused:
        cut_off()
    assert code(refused.value) == "unavailable"


def test_postgresql_that_says_nothing_is_unavailable_in_time_and_asked_again(
    postgres_url,
) -> None:
    database = Database(Settings(database_url=postgres_url(), database_answer_seconds=1.0))
    pid = 0
    began = time.monotonic()
    try:
        with database.read() as session:
            pid = int(session.scalar(sa.text("SELECT pg_backend_pid()")) or 0)
            os.kill(pid, signal.SIGSTOP)
            with pytest.raises(DBAPIError) as refused:
                session.execute(sa.text("SELECT 1"))
        assert time.monotonic() - began < 10
        assert code(refused.value) == "unavailable"
        with database.write() as session:  # over a connection of its own
            assert session.scalar(sa.text("SELECT pg_backend_pid()")) != pid
            session.execute(sa.text("SELECT pg_sleep(0.3)"))
    finally:
        os.kill(pid, signal.SIGCONT)
        database.dispose()


def test_no_postgresql_at_all_is_unavailable() -> None:
    database = Database(Settings(database_url="postgresql://nobody@127.0.0.1:1/x"))
    with pytest.raises(DBAPIError) as refused, database.read() as session:
        session.execute(sa.text("SELECT 1"))
    assert code(refused.value) == "unavailable"
    database.dispose()


def test_sqlite_that_gives_up_a_transaction_with_its_savepoints_says_why(sqlite: Path) -> None:
    """It rolls everything back when it is full: what fails then is the way back to a savepoint."""
    database = Database(Settings(data_dir=sqlite.parent))

    def small(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute("PRAGMA max_page_count = 1")

    def write_within_savepoints() -> None:
        with database.write() as session:
            for _ in range(100):
                with session.begin_nested():
                    keys.create_project(session, "x" * 5000)

    sa.event.listen(database.engine, "connect", small)
    with pytest.raises(DBAPIError) as refused:
        write_within_savepoints()
    assert "no such savepoint" in str(refused.value)
    assert code(refused.value) == "storage_full"
    database.dispose()
