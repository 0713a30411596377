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

from store.settings import Settings

BUSY_SECONDS = 10.0


def engine_for(settings: Settings) -> sa.Engine:
    """An engine for the settings' database; the folder of a SQLite file is made if needed."""
    url = sa.make_url(settings.database_url)
    if url.get_backend_name() != "sqlite":
        return sa.create_engine(url, pool_pre_ping=True, pool_size=10, max_overflow=20)
    if not url.database or url.database == ":memory:":
        raise ValueError("SQLite needs a file: several processes share the database")
    Path(url.database).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    engine = sa.create_engine(
        url, connect_args={"timeout": BUSY_SECONDS}, pool_size=20, max_overflow=40
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, record: Any) -> None:
    # The driver's own transaction handling is off: `_begin_sqlite` says BEGIN.
    connection.isolation_level = None
    _use_wal(connection)
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA foreign_keys = ON")


def _use_wal(connection: sqlite3.Connection) -> None:
    # Switching a new file to WAL ignores busy_timeout when another process does the same.
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            if connection.execute("PRAGMA journal_mode = WAL").fetchone()[0] == "wal":
                return
            raise RuntimeError("this SQLite file can't use write-ahead logging")
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _begin_sqlite(connection: sa.Connection) -> None:
    # IMMEDIATE takes the write lock at once: a transaction that reads, then writes, would fail
    # without waiting if another wrote in between.
    reads = connection.get_execution_options().get("secateur_reads", False)
    connection.exec_driver_sql(f"PRAGMA query_only = {'ON' if reads else 'OFF'}")
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


class Database:
    """The two ways to the database. Neither may stay open while bytes are streamed.

    Safe to use from several threads, and in a child after fork.
    """

    def __init__(self, settings: Settings) -> None:
        self.engine = engine_for(settings)
        options: dict[str, Any] = {"secateur_reads": True}
        if self.engine.dialect.name == "postgresql":
            # One snapshot for the whole transaction, as SQLite has it.
            options |= {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        self._reading = self.engine.execution_options(**options)
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
    def write(self) -> Iterator[Session]:
        """A write transaction: commits at the end, rolls back if the body raises."""
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    def dispose(self) -> None:
        """Closes the pooled connections."""
        self.engine.dispose()
