"""Rows by key, for what is asked for many times a second.

A query through a session, in a transaction of its own, costs some twenty times what the database
takes to find one row. Here the text is made once, the connection is kept, and each query is a
transaction by itself.
"""

import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.orm import InstrumentedAttribute

from store.columns import storable
from store.db import Database

Column = InstrumentedAttribute[Any]


class Lookup:
    """The columns of the rows whose `key` is one of those asked for.

    Values are as the driver has them, which is all that comparing them needs.

    Args:
        key: A column of text with an index.
        columns: Of the same table.
        where: What else must hold, in SQL that every database reads.
    """

    def __init__(self, key: Column, *columns: Column, where: str = "") -> None:
        table = key.class_.__tablename__
        names = ", ".join(f'"{column.key}"' for column in columns)
        also = f" AND {where}" if where else ""
        self._text = f'SELECT {names} FROM "{table}" WHERE "{key.key}" {{}}{also}'

    def on(self, dialect: str, keys: Sequence[str]) -> tuple[str, tuple[Any, ...]]:
        """The text and its parameters."""
        keys = [storable(key) for key in keys]
        if dialect == "sqlite":
            if len(keys) == 1:
                return self._text.format("= ?"), (keys[0],)
            return self._text.format("IN (SELECT value FROM json_each(?))"), (json.dumps(keys),)
        return self._text.format("= ANY(%s)"), (keys,)


class Lookups:
    """A connection for lookups; for one thread.

    Args:
        database: What is read.
        waits: Whether it may wait for a SQLite file that is locked, which in write-ahead mode it is
            for readers only while the log is recovered; else that is an error at once.
    """

    def __init__(self, database: Database, *, waits: bool = True) -> None:
        self._engine = database.engine
        self._waits = waits
        self._dialect = self._engine.dialect.name
        self._connection: sa.PoolProxiedConnection | None = None
        self._driver: Any = None

    def rows(self, lookup: Lookup, keys: Sequence[str]) -> list[tuple[Any, ...]]:
        """The rows with these keys, in any order.

        Raises:
            sqlalchemy.exc.DBAPIError: What the database says.
        """
        text, parameters = lookup.on(self._dialect, keys)
        failure = self._engine.dialect.loaded_dbapi.Error
        kept = self._connection is not None
        try:
            return self._fetch(text, parameters)
        except failure as error:
            self.close()
            if not kept:
                raise self._told(text, error) from error
        # A connection that was kept may have been closed by the other side meanwhile.
        try:
            return self._fetch(text, parameters)
        except failure as error:
            self.close()
            raise self._told(text, error) from error

    def close(self) -> None:
        """Gives up the connection."""
        if self._connection is not None:
            with suppress(self._engine.dialect.loaded_dbapi.Error):
                self._connection.close()
            self._connection = None

    def _told(self, text: str, error: Any) -> BaseException:
        """The driver's error as SQLAlchemy raises it, as for any other query."""
        base = self._engine.dialect.loaded_dbapi.Error
        return sa.exc.DBAPIError.instance(text, None, error, base)

    def _fetch(self, text: str, parameters: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        if self._connection is None:
            self._connection = self._engine.raw_connection()
            self._driver = cast(Any, self._connection.driver_connection)
            # Never back into the pool: it stays one that only reads.
            self._connection.detach()
            if self._dialect == "sqlite":
                self._driver.execute("PRAGMA query_only = ON")
                if not self._waits:
                    self._driver.execute("PRAGMA busy_timeout = 0")
            else:
                self._driver.autocommit = True
                self._driver.execute("SET default_transaction_read_only = on")
        return list(self._driver.execute(text, parameters).fetchall())
