"""Cursor pages: newest first, continued after the last row that was seen."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import sqlalchemy as sa
from sqlalchemy.orm import Session

from pruning.errors import SecateurError
from store.ids import ALPHABET, PREFIXES

Row = TypeVar("Row")
Takes = Callable[[Row], bool]

_BATCH = 8


@dataclass(frozen=True)
class Page(Generic[Row]):
    """Some rows, and the cursor of the next page; None on the last."""

    items: list[Row]
    next_cursor: str | None


def page(
    session: Session,
    query: sa.Select[Row],
    id_column: Any,
    *,
    limit: int,
    cursor: str | None,
    takes: Takes[Row] | None = None,
) -> Page[Row]:
    """One page of a query, by id from the newest to the oldest.

    Args:
        session: A transaction.
        query: All rows of the list.
        id_column: Their order.
        limit: Most rows of the page.
        cursor: That of the page before.
        takes: Given each row in turn; the page ends before the first that it refuses.

    Raises:
        SecateurError: `invalid_cursor`.
    """
    if cursor is not None:
        query = query.where(id_column < _last_seen(cursor, _kind_of(id_column)))
    # In small batches: a row may be large, and the page may end early.
    query = query.order_by(id_column.desc()).limit(limit + 1).execution_options(yield_per=_BATCH)
    rows: list[Row] = []
    more = False
    with session.scalars(query) as found:
        for row in found:
            more = len(rows) == limit or not (takes is None or takes(row))
            if more:
                break
            rows.append(row)
    return Page(rows, rows[-1].id if more else None)  # type: ignore[attr-defined]


def cursor_pattern(kind: str) -> str:
    """What a cursor of a list of these looks like: for who calls, it has no meaning of its own."""
    return f"^{PREFIXES[kind]}_[{ALPHABET}]{{26}}$"


def _kind_of(id_column: Any) -> str:
    table: str = id_column.class_.__tablename__
    return "key" if table == "api_key" else table


def _last_seen(cursor: str, kind: str) -> str:
    """The id of the last row of the page before, which is what a cursor is."""
    if not re.fullmatch(cursor_pattern(kind)[1:-1], cursor):
        raise SecateurError(
            "invalid_cursor",
            "The cursor is not one this service gave out for this list.",
            where="cursor",
            hint="Pass next_cursor of the page before, unchanged, or leave it out.",
        )
    return cursor
