"""What a full disk or a database that does not answer means to whoever asked.

The one place that knows: routes, the supervisor and /readyz tell it as it is told here. What is not
known here is an error of our own.
"""

import errno
import sqlite3

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as NoConnectionError

from pruning.errors import SecateurError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_FAILING = frozenset({errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ESTALE})

# SQLite's primary result codes are the lowest byte of the extended ones.
_SQLITE_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_SQLITE_FAILING = frozenset(
    {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}
)

# PostgreSQL's SQLSTATE (appendix A of its manual), whole or the class.
_PG_FULL = frozenset({"53100"})
_PG_BUSY = frozenset({"40001", "40P01", "55P03", "57014", "53200", "53300", "53400"})
_PG_AWAY = frozenset({"57P01", "57P02", "57P03", "57P05", "58000", "58030"})
_PG_CONNECTION = "08"

TEMPORARY = frozenset({"storage_full", "database_busy", "unavailable", "overloaded"})
"""Codes of failures that pass without a change of the request."""


def told(error: BaseException) -> SecateurError | None:
    """What a failure of disk or database is to the user; None for any other error."""
    if isinstance(error, NoConnectionError):
        return SecateurError(
            "overloaded",
            "All connections to the database are in use.",
            where="database",
            hint="Try again shortly.",
        )
    if isinstance(error, DBAPIError):
        return _of_database(error)
    return _of_disk(error) if isinstance(error, OSError) else None


def no_room(where: str = "storage") -> SecateurError:
    """The 507 for bytes that nothing is free for."""
    return SecateurError(
        "storage_full",
        "The database has no room left." if where == "database" else "The disk has no room left.",
        where=where,
        hint="Delete jobs and uploads that are not needed, or try again later.",
    )


def _of_disk(error: OSError) -> SecateurError | None:
    if error.errno in _FULL:
        return no_room()
    if error.errno in _FAILING:
        return _unavailable("storage", "The storage can't be read or written at the moment.")
    return None


def _of_database(error: DBAPIError) -> SecateurError | None:
    cause = error.orig
    if isinstance(cause, sqlite3.Error):
        return _of_sqlite(cause) or _before(error, cause)
    state = getattr(cause, "sqlstate", None)
    if state in _PG_FULL:
        return no_room("database")
    if state in _PG_BUSY:
        return _busy()
    lost = error.connection_invalidated or state in _PG_AWAY
    never = state is None and type(cause).__name__ in ("OperationalError", "ConnectionTimeout")
    if lost or never or (state or "").startswith(_PG_CONNECTION):
        return _unavailable("database", "The database does not answer.")
    return None


def _of_sqlite(cause: sqlite3.Error) -> SecateurError | None:
    code = getattr(cause, "sqlite_errorcode", None)
    if code is None:
        return None
    primary = code & 0xFF
    # Its index of the log can't grow, which it does not tell from other errors of the disk.
    if primary == sqlite3.SQLITE_FULL or code == sqlite3.SQLITE_IOERR_SHMSIZE:
        return no_room("database")
    if primary in _SQLITE_BUSY:
        return _busy()
    if code == sqlite3.SQLITE_READONLY or primary not in _SQLITE_FAILING:
        return None  # the first is a write inside `Database.read`
    return _unavailable("database", "The database can't be read or written at the moment.")


def _before(error: DBAPIError, cause: sqlite3.Error) -> SecateurError | None:
    """What SQLite rolled a transaction back for, where that is why its savepoint is gone."""
    if getattr(cause, "sqlite_errorcode", None) != sqlite3.SQLITE_ERROR:
        return None
    earlier = error.__context__
    while earlier is not None:
        if isinstance(earlier, sqlite3.Error) and (known := _of_sqlite(earlier)) is not None:
            return known
        earlier = earlier.__context__
    return None


def _busy() -> SecateurError:
    return SecateurError(
        "database_busy",
        "The database was busy for longer than a request waits.",
        where="database",
        hint="Try again shortly.",
    )


def _unavailable(where: str, message: str) -> SecateurError:
    return SecateurError("unavailable", message, where=where, hint="Try again shortly.")
