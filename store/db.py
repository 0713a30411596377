"""Connections: short read transactions and write transactions, on SQLite or PostgreSQL."""

import os
import sqlite3
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import Session

from store.disk import make_folder
from store.settings import Settings

IDLE_SECONDS = 30  # after which PostgreSQL ends a transaction that does nothing


def engine_for(settings: Settings, *, patient: bool = False) -> sa.Engine:
    """An engine for the settings' database; the folder of a SQLite file is made if needed.

    Args:
        settings: Name the database and how long to wait for it.
        patient: Whether PostgreSQL may take any time for a statement, as migrations do.
    """
    url = sa.make_url(settings.database_url)
    wait = settings.database_wait_seconds
    if url.get_backend_name() != "sqlite":
        asked = {} if "connect_timeout" in url.query else {"connect_timeout": max(2, int(wait))}
        engine = sa.create_engine(
            url,
            pool_pre_ping=True,
            pool_size=10,
            max_overflow=20,
            pool_timeout=wait,
            connect_args=asked,
        )

        def bound(connection: Any, record: Any) -> None:
            # Not as a start-up option: connection poolers refuse these.
            with connection.cursor() as cursor:
                cursor.execute(f"SET lock_timeout = {wait * 1e3:.0f}")
                # A process that is stopped in mid-transaction keeps what it has locked.
                cursor.execute(f"SET idle_in_transaction_session_timeout = {IDLE_SECONDS * 1000}")
            connection.commit()

        event.listen(engine, "connect", bound)
        if not patient:
            from store.postgresql import connecting

            connect = connecting(settings.database_answer_seconds)

            def answering(_dialect: Any, _record: Any, given: Any, options: Any) -> Any:
                return connect(*given, **options)

            event.listen(engine, "do_connect", answering)
        return engine
    if not url.database or url.database == ":memory:":
        raise ValueError("SQLite needs a file: several processes share the database")
    make_folder(Path(url.database).parent, 0o700)
    engine = sa.create_engine(
        url, connect_args={"timeout": wait}, pool_size=20, max_overflow=40, pool_timeout=wait
    )

    def prepare(connection: sqlite3.Connection, record: Any) -> None:
        # The driver's own transaction handling is off: `_begin_sqlite` says BEGIN.
        connection.isolation_level = None
        _use_wal(connection, wait)
        connection.execute("PRAGMA foreign_keys = ON")

    event.listen(engine, "connect", prepare)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _use_wal(connection: sqlite3.Connection, wait: float) -> None:
    # Switching a new file to WAL ignores busy_timeout when another process does the same.
    deadline = time.monotonic() + wait
    while True:
        try:
            if connection.execute("PRAGMA journal_mode = WAL").fetchone()[0] == "wal":
                return
            raise RuntimeError("this SQLite file can't use write-ahead logging")
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
            if not busy or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _begin_sqlite(connection: sa.Connection) -> None:
    # IMMEDIATE takes the write lock at once: a transaction that reads, then writes, would fail
    # without waiting if another wrote in between.
    options = connection.get_execution_options()
    reads = options.get("secateur_reads", False)
    _set(connection, "query_only", "ON" if reads else "OFF")
    if not reads:
        # FULL syncs the log at the commit, and with it what NORMAL commits left in it before.
        _set(connection, "synchronous", "NORMAL" if options.get("secateur_hasty") else "FULL")
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def _set(connection: sa.Connection, name: str, value: str) -> None:
    """A pragma of the connection, unless it has that value; neither may change in a transaction."""
    if connection.info.get(name) != value:
        connection.exec_driver_sql(f"PRAGMA {name} = {value}")
        connection.info[name] = value


class Database:
    """The two ways to the database. Neither may stay open while bytes are streamed.

    Safe to use from several threads, and in a child after fork.
    """

    def __init__(self, settings: Settings, *, patient: bool = False) -> None:
        self.engine = engine_for(settings, patient=patient)
        options: dict[str, Any] = {"secateur_reads": True}
        if self.engine.dialect.name == "postgresql":
            # One snapshot for the whole transaction, as SQLite has it.
            options |= {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        self._reading = self.engine.execution_options(**options)
        self._hasty = self.engine.execution_options(secateur_hasty=True)
        engine = weakref.ref(self.engine)

        def forget_connections() -> None:
            if (inherited := engine()) is not None:
                inherited.dispose(close=False)

        os.register_at_fork(after_in_child=forget_connections)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A read transaction on one snapshot; writing in it is an error."""
        with Session(self._reading, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self, *, durable: bool = True) -> Iterator[Session]:
        """A write transaction: commits at the end, rolls back if the body raises.

        Args:
            durable: Whether it survives a power cut from the moment this returns. Without that
                SQLite may lose it, and it alone or what was written after it, never a part of it:
                for what is written again anyway, and promised to nobody.
        """
        engine = self.engine if durable else self._hasty
        with Session(engine, expire_on_commit=False) as session, session.begin():
            yield session

    def dispose(self) -> None:
        """Closes the pooled connections."""
        self.engine.dispose()
