"""Events of the jobs that streams of this process follow: one look at the store for all of them.

A stream keeps nothing but the number of the last event it has sent. What is new it takes from what
the feed has kept of its job; where that does not reach back far enough, as when it begins or when
its client reads slowly, it reads the store itself.
"""

import asyncio
import json
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field

import anyio
import anyio.to_thread

from api.views import event_view
from pruning.events import WaitingEvent
from store.clock import utcnow
from store.db import Database
from store.lookups import Lookups
from store.queries import events
from store.queries.events import FINAL_STATES
from store.tables import JobEvent

POLL_SECONDS = 0.3
HEARTBEAT_SECONDS = 4.0
"""The longest silence of a stream. A worker says as often that a job goes on (`alive`)."""

OUTAGE_SECONDS = 60.0
"""How long streams outlast a database that does not answer."""

_KEPT = 200
_PAGE = 200
_WAKE_AT_ONCE = 50
_WAITING_AT_ONCE = 40

_STILL_HERE = b": still here\n\n"

log = logging.getLogger("secateur.api.feed")


@dataclass(eq=False)
class Followed:
    """A job that streams follow.

    Args:
        project_id: Its owner.
        job_id: Its id.
        last: Number of the newest event that the feed knows.
        recent: The events up to it, as they are sent, without gaps.
        over: Nothing comes after `last`.
        quiet: What is sent while nothing happens, and `quiets` how often there was cause to.
        spoke_at: When anything was sent last, by the monotonic clock.
        asked_at: When it was last asked why the job waits.
        streams: What wakes each of them.
    """

    project_id: str
    job_id: str
    last: int
    recent: deque[tuple[int, bytes]] = field(default_factory=lambda: deque(maxlen=_KEPT))
    over: bool = False
    quiet: bytes = _STILL_HERE
    quiets: int = 0
    spoke_at: float = field(default_factory=time.monotonic)
    asked_at: float = 0.0
    streams: set[asyncio.Event] = field(default_factory=set)

    def since(self, seen: int) -> list[tuple[int, bytes]] | None:
        """The events after this number, or None if some of them are not kept."""
        first = self.recent[0][0] if self.recent else self.last + 1
        if seen + 1 < first:
            return None
        return [event for event in self.recent if event[0] > seen]


@dataclass(frozen=True)
class Frames:
    """Events after a number, as they are sent; the fields are those of `EventPage`."""

    items: list[tuple[int, bytes]]
    next_after: int
    ended: bool
    last: int


@dataclass(frozen=True)
class _Look:
    """What one look at the store found, by job."""

    events: Mapping[str, list[tuple[int, bytes]]]
    over: frozenset[str]
    quiet: Mapping[str, bytes]


class Feed:
    """Follows jobs for streams, as long as there are any. For one event loop.

    Args:
        database: The database that holds the jobs' events.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lookups = Lookups(database)
        self._followed: dict[tuple[str, str], Followed] = {}
        self._task: asyncio.Task[None] | None = None
        self._thread = anyio.CapacityLimiter(1)
        self._catching_up = anyio.CapacityLimiter(2)
        self._failing_since: float | None = None

    async def first(self, project_id: str, job_id: str, after: int) -> Frames:
        """The first events of a stream, after the number of the last that the client has.

        Raises:
            SecateurError: `not_found`, and what the database raises.
        """
        return await anyio.to_thread.run_sync(
            self._read, project_id, job_id, after, limiter=self._catching_up
        )

    async def stream(self, project_id: str, job_id: str, page: Frames) -> AsyncIterator[bytes]:
        """Events as Server-Sent Events, until the final state.

        Args:
            project_id: The job's owner.
            job_id: The job.
            page: What `first` gave.
        """
        while page.items:
            yield b"".join(frame for _, frame in page.items)
            if page.ended or page.next_after >= page.last:
                break
            page = await self._page(project_id, job_id, page.next_after)
        seen = page.next_after
        if page.ended:
            return
        woken = asyncio.Event()
        followed = self._join(project_id, job_id, min(seen, page.last), woken)
        try:
            heard = followed.quiets
            while True:
                woken.clear()
                new = followed.since(seen)
                if new is None:
                    page = await self._page(project_id, job_id, seen)
                    new, ended = page.items, page.ended
                else:
                    ended = followed.over and seen + len(new) >= followed.last
                if new:
                    seen = new[-1][0]
                    yield b"".join(frame for _, frame in new)
                elif heard != followed.quiets:
                    yield followed.quiet
                heard = followed.quiets
                if ended:
                    return
                if seen >= followed.last and not followed.over:
                    await woken.wait()
        finally:
            self._leave(followed, woken)

    def close(self) -> None:
        """Stops following."""
        if self._task is not None:
            self._task.cancel()
        self._lookups.close()

    def _join(self, project_id: str, job_id: str, last: int, woken: asyncio.Event) -> Followed:
        key = (project_id, job_id)
        followed = self._followed.setdefault(key, Followed(project_id, job_id, last))
        followed.streams.add(woken)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._follow())
        return followed

    def _leave(self, followed: Followed, woken: asyncio.Event) -> None:
        followed.streams.discard(woken)
        if not followed.streams:
            self._followed.pop((followed.project_id, followed.job_id), None)

    async def _follow(self) -> None:
        while self._followed:
            await asyncio.sleep(POLL_SECONDS)
            known = {f.job_id: f.last for f in self._followed.values() if not f.over}
            late = time.monotonic() - HEARTBEAT_SECONDS + POLL_SECONDS
            quiet = [f for f in self._followed.values() if f.spoke_at <= late]
            quiet.sort(key=lambda followed: followed.asked_at)
            asked = [(f.project_id, f.job_id) for f in quiet[:_WAITING_AT_ONCE]]
            for followed in quiet[:_WAITING_AT_ONCE]:
                followed.asked_at = time.monotonic()
            try:
                look = await anyio.to_thread.run_sync(
                    self._look, known, asked, limiter=self._thread
                )
                self._failing_since = None
            except Exception as error:
                look = self._failed(error)
            for number, woken in enumerate(self._told(look, quiet), 1):
                woken.set()
                if number % _WAKE_AT_ONCE == 0:
                    await asyncio.sleep(0)  # other requests come in between

    def _told(self, look: _Look, quiet: Iterable[Followed]) -> list[asyncio.Event]:
        """Passes on what was found; the streams that have something to send."""
        now = time.monotonic()
        woken: list[asyncio.Event] = []
        silent = set(quiet)
        for followed in self._followed.values():
            new = [e for e in look.events.get(followed.job_id, ()) if e[0] > followed.last]
            if new:
                followed.recent.extend(new)
                followed.last = new[-1][0]
            over = followed.job_id in look.over
            if not (new or over) and followed in silent:
                followed.quiet = look.quiet.get(followed.job_id, _STILL_HERE)
                followed.quiets += 1
            elif not (new or over):
                continue
            followed.over, followed.spoke_at = over, now
            woken += followed.streams
        return woken

    def _failed(self, error: Exception) -> _Look:
        """What streams are told while the database does not answer: at first nothing."""
        now = time.monotonic()
        if self._failing_since is None:
            self._failing_since = now
            log.warning("events can't be read: %s", error)
        if now - self._failing_since < OUTAGE_SECONDS:
            return _Look({}, frozenset(), {})
        log.error("events can't be read for %g s; streams end", OUTAGE_SECONDS)
        self._failing_since = None
        return _Look({}, frozenset(f.job_id for f in self._followed.values()), {})

    def _look(self, known: Mapping[str, int], quiet: Iterable[tuple[str, str]]) -> _Look:
        found = {row[0]: row[1:] for row in self._lookups.rows(events.PROGRESS, list(known))}
        behind = [job for job, last in known.items() if job in found and found[job][1] > last]
        new: dict[str, list[tuple[int, bytes]]] = {}
        told: dict[str, bytes] = {}
        if behind:
            with self._database.read() as session:
                for job in behind:
                    new[job] = _frames(events.of_job(session, job, known[job], _KEPT))
        queued = {job for job, (state, _) in found.items() if state == "queued"}
        asked = [key for key in quiet if key[1] in queued and key[1] not in new]
        if asked:
            with self._database.read() as session:
                # All of one look: each stream's first page showed whose job it is.
                waiting = events.waiting_all(session, [job for _, job in asked], utcnow())
            told = {job: _waiting_frame(event, known[job]) for job, event in waiting.items()}
        over = {
            job
            for job, last in known.items()
            if job not in found  # deleted, so it was over
            or (
                found[job][0] in FINAL_STATES
                and (new[job][-1][0] if new.get(job) else last) >= found[job][1]
            )
        }
        return _Look(new, frozenset(over), told)

    def _read(self, project_id: str, job_id: str, after: int) -> Frames:
        # In a thread, the writing of JSON too: many streams that begin at once would hold the loop.
        with self._database.read() as session:
            page = events.after(session, project_id, job_id, after, _PAGE)
        return Frames(_frames(page.items), page.next_after, page.ended, page.last)

    async def _page(self, project_id: str, job_id: str, after: int) -> Frames:
        """A page of the store, as soon as the database answers."""
        deadline = time.monotonic() + OUTAGE_SECONDS
        while True:
            try:
                return await self.first(project_id, job_id, after)
            except Exception as error:
                if getattr(error, "code", None) == "not_found":  # deleted, so it was over
                    return Frames([], after, True, after)
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(POLL_SECONDS)


def _frames(rows: Iterable[JobEvent]) -> list[tuple[int, bytes]]:
    return [(row.seq, _frame(row)) for row in rows]


def _frame(event: JobEvent) -> bytes:
    fields = event_view(event)
    return f"id: {event.seq}\nevent: {fields['type']}\ndata: {json.dumps(fields)}\n\n".encode()


def _waiting_frame(waiting: WaitingEvent, last: int) -> bytes:
    # The number of the last event, so that who asks again after it misses nothing.
    fields = {"seq": last, **waiting.model_dump(mode="json")}
    return f"event: {waiting.type}\ndata: {json.dumps(fields)}\n\n".encode()
