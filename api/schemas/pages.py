"""One page of a list."""

from typing import Generic, TypeVar

from pydantic import Field

from api.schemas.described import Answer

T = TypeVar("T")


class Page(Answer, Generic[T]):
    """One page of a list, newest first."""

    data: list[T]
    next_cursor: str | None = Field(
        None, description="Pass it as `cursor` for the next page; null on the last."
    )
