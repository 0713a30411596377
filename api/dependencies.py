"""What routes ask for: the service's parts, the caller, a page.

All are coroutines: FastAPI runs a plain function in a thread, which costs more than what they do.
"""

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Query, Request

from api.auth import principal
from api.feed import Feed
from api.gates import Gates
from api.reading import BatchReader
from api.shown import Shown
from api.writing import GroupWriter
from store import pages
from store.blobs import Blobs
from store.db import Database
from store.queries.keys import Principal
from store.settings import Settings

PAGE_LIMIT = 200


@dataclass(frozen=True)
class Service:
    """The parts that all routes share; made once by `create_app`."""

    settings: Settings
    database: Database
    blobs: Blobs
    reader: BatchReader
    writer: GroupWriter
    shown: Shown
    feed: Feed
    gates: Gates


async def service(request: Request) -> Service:
    """The service that the app was created with."""
    found: Service = request.app.state.service
    return found


async def _database(parts: Annotated[Service, Depends(service)]) -> Database:
    return parts.database


@dataclass(frozen=True)
class PageQuery:
    """Which page of a list, and how long."""

    limit: int
    cursor: str | None


def _page_of(kind: str) -> Any:
    # The store refuses other cursors, with a code of its own.
    written = {"pattern": pages.cursor_pattern(kind)}

    async def asked(
        limit: Annotated[
            int,
            Query(
                ge=1, le=PAGE_LIMIT, description="Most items on a page; large ones make it shorter."
            ),
        ] = 50,
        cursor: Annotated[
            str | None,
            Query(description="next_cursor of the page before.", json_schema_extra=written),
        ] = None,
    ) -> PageQuery:
        return PageQuery(limit, cursor)

    return Depends(asked)


Parts = Annotated[Service, Depends(service)]
Db = Annotated[Database, Depends(_database)]
Caller = Annotated[Principal, Depends(principal)]
ModelsPaged = Annotated[PageQuery, _page_of("model")]
DatasetsPaged = Annotated[PageQuery, _page_of("dataset")]
JobsPaged = Annotated[PageQuery, _page_of("job")]
KeysPaged = Annotated[PageQuery, _page_of("key")]
