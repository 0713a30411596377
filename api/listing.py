"""A page of a list as bytes of JSON: as many rows as were asked for, or as an answer may hold."""

from collections.abc import Callable
from typing import Generic, TypeVar

from pydantic import BaseModel
from starlette.responses import Response

Row = TypeVar("Row")

PAGE_BYTES = 1 << 20
"""What the rows of one page take. One model's facts may take eight times that, and come alone."""


class Listing(Generic[Row]):
    """Takes rows for as long as there is room for them.

    A row is written as soon as it is read: neither all rows of a page nor all they would become are
    ever held, and no single call is long.

    Args:
        view: What is shown of a row.
    """

    def __init__(self, view: Callable[[Row], BaseModel]) -> None:
        self._view = view
        self._written: list[str] = []
        self._size = 0

    def takes(self, row: Row) -> bool:
        """Adds the row if there is room for it; the first always finds some."""
        text = self._view(row).model_dump_json()
        self._size += len(text)
        if self._written and self._size > PAGE_BYTES:
            return False
        self._written.append(text)
        return True

    def response(self, next_cursor: str | None) -> Response:
        """The page; `next_cursor` is that of the last row that was taken."""
        # Cursors are ids: nothing of them needs to be escaped.
        cursor = "null" if next_cursor is None else f'"{next_cursor}"'
        text = f'{{"data":[{",".join(self._written)}],"next_cursor":{cursor}}}'
        return Response(text.encode(), media_type="application/json")
