"""What a job says while it runs: JSON pages, or Server-Sent Events until the job is over."""

import json
import time
from collections.abc import AsyncIterator
from typing import Annotated

import anyio
import anyio.to_thread
from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import StreamingResponse
from starlette.responses import Response

from api.accept import prefers
from api.dependencies import Caller, Db
from api.schemas.events import STREAM, Events
from api.views import event_view
from store.clock import utcnow
from store.db import Database
from store.queries import events
from store.queries.events import EventPage

router = APIRouter(prefix="/v1/jobs/{job_id}/events", tags=["jobs"])

POLL_SECONDS = 0.3
HEARTBEAT_SECONDS = 4.0
"""The longest silence of a stream. A worker says as often that a job goes on (`alive`)."""

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
    database: Db,
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
    page = await anyio.to_thread.run_sync(
        _read, database, caller.project_id, job_id, after or 0, limit
    )
    if not stream:
        data = [event_view(event) for event in page.items]
        return Events(data=data, next_after=page.next_after, ended=page.ended)
    return StreamingResponse(
        _stream(request, database, caller.project_id, job_id, after or 0),
        media_type="text/event-stream",
        headers={"cache-control": "no-store", "x-accel-buffering": "no"},
    )


async def _stream(
    request: Request, database: Database, project_id: str, job_id: str, after: int
) -> AsyncIterator[str]:
    sent_at = time.monotonic()
    while not await request.is_disconnected():
        page = await anyio.to_thread.run_sync(_read, database, project_id, job_id, after, _BATCH)
        for event in page.items:
            fields = event_view(event)
            yield f"id: {event.seq}\nevent: {fields['type']}\ndata: {json.dumps(fields)}\n\n"
            sent_at = time.monotonic()
        after = page.next_after
        if page.ended:
            return
        if len(page.items) == _BATCH:
            continue
        if time.monotonic() - sent_at >= HEARTBEAT_SECONDS:
            yield await anyio.to_thread.run_sync(_quiet, database, project_id, job_id, after)
            sent_at = time.monotonic()
        await anyio.sleep(POLL_SECONDS)


def _quiet(database: Database, project_id: str, job_id: str, after: int) -> str:
    """What a stream holds while nothing happens: why the job waits, else a comment."""
    with database.read() as session:
        found = events.waiting(session, project_id, job_id, utcnow())
    if found is None:
        return ": still here\n\n"
    # The number of the last event, so that who asks again after it misses nothing.
    fields = {"seq": after, **found.model_dump(mode="json")}
    return f"event: {found.type}\ndata: {json.dumps(fields)}\n\n"


def _read(database: Database, project_id: str, job_id: str, after: int, limit: int) -> EventPage:
    with database.read() as session:
        return events.after(session, project_id, job_id, after, limit)
