"""What a job says while it runs: JSON pages, or Server-Sent Events until the job is over."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from typing import Annotated

import anyio
import anyio.to_thread
from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import StreamingResponse
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.accept import prefers
from api.dependencies import Caller, Parts
from api.gates import Gate
from api.schemas.events import STREAM, Events
from api.views import event_view
from store.db import Database
from store.queries import events
from store.queries.events import EventPage

router = APIRouter(prefix="/v1/jobs/{job_id}/events", tags=["jobs"])

_BATCH = 200
_LARGEST = 2**31 - 1


@router.get(
    "",
    response_model=Events,
    responses={200: {"content": {"text/event-stream": STREAM}}},
)
async def get_events(
    job_id: str,
    request: Request,
    parts: Parts,
    caller: Caller,
    after: Annotated[int | None, Query(ge=0, le=_LARGEST, description="The last seq seen.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = _BATCH,
    last_event_id: Annotated[str | None, Header(description="As `after`, for SSE.")] = None,
) -> Response | Events:
    """Events after a number.

    With `Accept: text/event-stream` a stream that ends after the event of the final state. While
    the job is queued, it holds `waiting` every few seconds, which has no number of its own.
    """
    stream = prefers(request, "text/event-stream", over="application/json")
    if after is None and stream and last_event_id and last_event_id.isdecimal():
        after = min(int(last_event_id[:10]), _LARGEST)
    owner, seen = caller.project_id, after or 0
    if stream:
        first = await parts.feed.first(owner, job_id, seen)
        return EventStream(parts.feed.stream(owner, job_id, first), parts.gates.streams, owner)
    page = await anyio.to_thread.run_sync(_read, parts.database, owner, job_id, seen, limit)
    data = [event_view(event) for event in page.items]
    return Events(data=data, next_after=page.next_after, ended=page.ended)


class EventStream(StreamingResponse):
    """Server-Sent Events, as long as the client stays; counted.

    Args:
        chunks: What is sent.
        gate: Where there must be room for one more.
        project_id: Whose stream it is.
    """

    def __init__(self, chunks: AsyncIterator[bytes], gate: Gate, project_id: str) -> None:
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        super().__init__(chunks, media_type="text/event-stream", headers=headers)
        self._chunks, self._gate, self._project_id = chunks, gate, project_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the stream, or raises `overloaded` before anything of it."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._gate.place(self._project_id))
            await stack.enter_async_context(aclosing(self._chunks))  # type: ignore[type-var]
            await super().__call__(scope, receive, send)


def _read(database: Database, project_id: str, job_id: str, after: int, limit: int) -> EventPage:
    with database.read() as session:
        return events.after(session, project_id, job_id, after, limit)
