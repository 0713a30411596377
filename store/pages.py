"""Cursor pages: newest first, continued after the last row that was seen."""

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import sqlalchemy as sa
from sqlalchemy.orm import Session

from pruning.errors import SecateurError

Row = TypeVar("Row")
_ID = re.compile(r"[a-z]+_[0-9a-z]{26}")


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
) -> Page[Row]:
    """One page of a query, by id from the newest to the oldest.

    Raises:
        SecateurError: `invalid_cursor`.
    """
    if cursor is not None:
        query = query.where(id_column < _decode(cursor))
    rows = list(session.scalars(query.order_by(id_column.desc()).limit(limit + 1)))
    more = len(rows) > limit
    rows = rows[:limit]
    return Page(rows, _encode(rows[-1].id) if more else None)  # type: ignore[attr-defined]


def _encode(last_id: str) -> str:
    return base64.urlsafe_b64encode(last_id.encode()).decode().rstrip("=")


def _decode(cursor: str) -> str:
    try:
        last_id = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except (ValueError, binascii.Error):
        last_id = ""
    if not _ID.fullmatch(last_id) or _encode(last_id) != cursor:
        raise SecateurError(
            "invalid_cursor",
            "The cursor is not one this service gave out.",
            where="cursor",
            hint="Pass next_cursor of the page before, unchanged, or leave it out.",
        )
    return last_id
