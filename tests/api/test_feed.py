"""Streams of events share one look at the store, and none of them keeps what it has not sent."""

import asyncio
import json
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event

from api import feed as feeds
from api.feed import Feed
from pruning.events import MetricEvent
from store.claims import Claim, Outcome
from store.queries import jobs
from tests.api.conftest import Caller, assert_problem
from tests.api.test_events import STREAM, frames, until


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "POLL_SECONDS", 0.02)


@pytest.fixture
def running(caller: Caller) -> Claim:
    return caller.service.claim_job(caller.submit()["id"])


def said(caller: Caller, claim: Claim, *numbers: int) -> None:
    metrics = (MetricEvent(name=f"m{n}", stage="dense", value=n) for n in numbers)
    caller.service.report(claim, *metrics)


@contextmanager
def statements(caller: Caller) -> Iterator[list[str]]:
    """What is asked of the database meanwhile, the feed's own lookups apart."""
    seen: list[str] = []

    def saw(_conn: Any, _cursor: Any, text: str, *_: Any) -> None:
        seen.append(text)

    event.listen(caller.service.database.engine, "before_cursor_execute", saw)
    try:
        yield seen
    finally:
        event.remove(caller.service.database.engine, "before_cursor_execute", saw)


def test_many_streams_of_a_job_cost_the_database_what_one_does(
    caller: Caller, running: Claim
) -> None:
    path = f"/v1/jobs/{running.job_id}/events"
    got: dict[int, list[str]] = {}

    def follow(number: int) -> None:
        with (
            caller.service.client(caller.secret) as http,
            http.stream("GET", path, headers=STREAM) as r,
        ):
            got[number] = [frame["id"] for frame in frames(r) if "id" in frame]

    followed = caller.service.app.state.service.feed._followed
    threads = [threading.Thread(target=follow, args=(n,)) for n in range(20)]
    for thread in threads:
        thread.start()
    key = (caller.project_id, running.job_id)
    until(lambda: key in followed and len(followed[key].streams) == 20, 20)
    with statements(caller) as seen:
        said(caller, running, 1)
        until(lambda: followed[key].last == 3)
        said(caller, running, 2)
        until(lambda: followed[key].last == 4)
        reads = [text for text in seen if text.startswith("SELECT job_event")]
    assert len(reads) <= 4
    caller.service.finish(running, Outcome("succeeded"))
    for thread in threads:
        thread.join(10)
    assert [got[n] for n in range(20)] == [["1", "2", "3", "4", "5"]] * 20
    assert key not in followed


async def collected(stream: AsyncIterator[bytes], pause: float = 0.0) -> list[dict[str, Any]]:
    found = []
    async for chunk in stream:
        for frame in chunk.decode().split("\n\n"):
            fields = dict(line.split(": ", 1) for line in frame.splitlines() if line[0] != ":")
            if "id" in fields:
                found.append(json.loads(fields["data"]))
        await asyncio.sleep(pause)
    return found


def stream_of(feed: Feed, caller: Caller, job: str, after: int = 0) -> AsyncIterator[bytes]:
    return feed.stream(caller.project_id, job, feed._read(caller.project_id, job, after))


def test_a_slow_client_and_one_that_comes_late_miss_nothing(
    caller: Caller, running: Claim, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "_KEPT", 3)
    monkeypatch.setattr(feeds, "_PAGE", 4)
    feed = Feed(caller.service.database)
    job = running.job_id

    async def go() -> list[list[int]]:
        slow = asyncio.create_task(collected(stream_of(feed, caller, job), pause=0.2))
        quick = asyncio.create_task(collected(stream_of(feed, caller, job)))
        for number in range(12):
            await asyncio.to_thread(said, caller, running, number, number)
            await asyncio.sleep(0.03)
        late = asyncio.create_task(collected(stream_of(feed, caller, job, after=5)))
        future = asyncio.create_task(collected(stream_of(feed, caller, job, after=26)))
        await asyncio.sleep(0.05)
        await asyncio.to_thread(caller.service.finish, running, Outcome("succeeded"))
        found = await asyncio.gather(slow, quick, late, future)
        feed.close()
        return [[event["seq"] for event in events] for events in found]

    slow, quick, late, future = asyncio.run(asyncio.wait_for(go(), 20))
    assert slow == quick == list(range(1, 28))
    assert late == list(range(6, 28))
    assert future == [27]


def test_streams_outlast_a_database_that_does_not_answer_for_a_while(
    caller: Caller, running: Claim, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "HEARTBEAT_SECONDS", 0.05)
    feed = Feed(caller.service.database)
    answers = feed._lookups.rows
    failures = 0

    def away(*arguments: Any) -> Any:
        nonlocal failures
        if failures < 10:
            failures += 1
            raise sa.exc.OperationalError("SELECT", None, Exception("gone"))
        return answers(*arguments)

    monkeypatch.setattr(feed._lookups, "rows", away)

    async def go() -> list[dict[str, Any]]:
        follows = asyncio.create_task(collected(stream_of(feed, caller, running.job_id)))
        await asyncio.sleep(0.1)
        await asyncio.to_thread(caller.service.finish, running, Outcome("succeeded"))
        found = await follows
        feed.close()
        return found

    assert [e["seq"] for e in asyncio.run(asyncio.wait_for(go(), 20))] == [1, 2, 3]
    assert failures == 10


def test_streams_end_when_the_database_stays_away(
    caller: Caller, running: Claim, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "OUTAGE_SECONDS", 0.1)
    feed = Feed(caller.service.database)

    def away(*_: Any) -> Any:
        raise sa.exc.OperationalError("SELECT", None, Exception("gone"))

    monkeypatch.setattr(feed._lookups, "rows", away)

    async def go() -> list[dict[str, Any]]:
        return await collected(stream_of(feed, caller, running.job_id))

    assert [e["seq"] for e in asyncio.run(asyncio.wait_for(go(), 20))] == [1, 2]


def test_a_stream_of_a_job_that_is_deleted_ends(caller: Caller) -> None:
    job = caller.submit()["id"]
    feed = Feed(caller.service.database)

    def remove() -> None:
        with caller.service.database.write() as session:
            jobs.request_cancel(session, caller.project_id, job)
            jobs.delete(session, caller.project_id, job)

    async def go() -> list[dict[str, Any]]:
        follows = asyncio.create_task(collected(stream_of(feed, caller, job)))
        await asyncio.sleep(0.1)
        await asyncio.to_thread(remove)
        return await follows

    assert [e["seq"] for e in asyncio.run(asyncio.wait_for(go(), 20))] == [1]


def test_what_is_kept_of_a_job_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "_KEPT", 2)
    followed = feeds.Followed("p", "j", 5)
    assert followed.since(5) == []
    assert followed.since(4) is None
    followed.recent.extend((n, b"") for n in (6, 7, 8))
    followed.last = 8
    assert followed.recent == deque([(7, b""), (8, b"")])
    assert followed.since(5) is None
    assert followed.since(6) == [(7, b""), (8, b"")]
    assert followed.since(9) == []


def test_more_streams_than_the_service_takes_are_refused_with_the_time_to_try_again(
    caller: Caller, running: Claim
) -> None:
    gate = caller.service.app.state.service.gates.streams
    path = f"/v1/jobs/{running.job_id}/events"
    most = gate.bounds.project_places
    with ExitStack() as open_streams:
        http = open_streams.enter_context(caller.service.client(caller.secret))
        for _ in range(most):
            response = open_streams.enter_context(http.stream("GET", path, headers=STREAM))
            assert response.status_code == 200
        refused = caller.http.get(path, headers=STREAM)
        assert_problem(refused, 503, "overloaded")
        assert int(refused.headers["retry-after"]) >= 1
        assert caller.http.get(path).status_code == 200, "the list is given all the same"
    until(lambda: not gate.inside)
    with caller.http.stream("GET", path, headers=STREAM) as response:
        assert response.status_code == 200
