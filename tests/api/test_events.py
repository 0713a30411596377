"""A job's events as JSON pages and as a stream."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from api import feed
from pruning.events import (
    EVENT,
    AliveEvent,
    MetricEvent,
    PhaseEvent,
    ProgressEvent,
    WaitingEvent,
)
from store.claims import Outcome
from store.clock import utcnow
from store.queries import events
from tests.api.conftest import Caller, assert_problem

STREAM = {"accept": "text/event-stream"}


def frames(response: httpx.Response) -> Iterator[dict[str, Any]]:
    """The events of a stream: id, event, data; comments as `comment`."""
    fields: dict[str, Any] = {}
    for line in response.iter_lines():
        if not line:
            yield fields
            fields = {}
            continue
        name, _, value = line.partition(":")
        fields[name or "comment"] = value.strip()


def until(holds: Callable[[], object], seconds: float = 5.0) -> None:
    """Waits until something holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def over(caller: Caller) -> str:
    """A job that ended, with five events: queued, running, phase, metric, succeeded."""
    job = caller.submit()
    claim = caller.service.claim_job(job["id"])
    said = (PhaseEvent(phase="loading"), MetricEvent(name="accuracy", stage="dense", value=0.5))
    caller.service.report(claim, *said)
    caller.service.finish(claim, Outcome("succeeded"))
    return f"/v1/jobs/{job['id']}/events"


def test_events_come_in_pages_after_a_number(caller: Caller, over: str) -> None:
    first = caller.http.get(over, params={"limit": 3}).json()
    assert [event["seq"] for event in first["data"]] == [1, 2, 3]
    assert [event["type"] for event in first["data"]] == ["state", "state", "phase"]
    assert (first["next_after"], first["ended"]) == (3, False)
    rest = caller.http.get(over, params={"after": 3}).json()
    assert [event["seq"] for event in rest["data"]] == [4, 5]
    assert rest["data"][-1]["state"] == "succeeded"
    assert rest["ended"]
    nothing = caller.http.get(over, params={"after": 99}).json()
    assert (nothing["data"], nothing["next_after"]) == ([], 99)


def test_events_parse_with_the_models_of_the_library(caller: Caller, over: str) -> None:
    for event in caller.http.get(over).json()["data"]:
        assert event.pop("at").endswith("Z")
        event.pop("seq")
        EVENT.validate_python(event)


def test_bad_numbers_are_refused(caller: Caller, over: str) -> None:
    for params in ({"after": -1}, {"after": "x"}, {"after": 2**70}, {"limit": 0}, {"limit": 1001}):
        assert_problem(caller.http.get(over, params=params), 422, "invalid_request")


def test_a_stream_ends_with_the_final_state(caller: Caller, over: str) -> None:
    with caller.http.stream("GET", over, headers=STREAM) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        found = list(frames(response))
    assert [frame["id"] for frame in found] == ["1", "2", "3", "4", "5"]
    assert [frame["event"] for frame in found][-1] == "state"
    assert json.loads(found[-1]["data"])["state"] == "succeeded"
    assert [json.loads(f["data"]) for f in found] == caller.http.get(over).json()["data"]


@pytest.mark.parametrize(
    ("headers", "params", "ids"),
    [
        ({"last-event-id": "3"}, {}, ["4", "5"]),
        ({}, {"after": 4}, ["5"]),
        ({"last-event-id": "1"}, {"after": 4}, ["5"]),
        ({"last-event-id": "5"}, {}, []),
        ({"last-event-id": "9" * 40}, {}, []),
        ({"last-event-id": "nonsense"}, {}, ["1", "2", "3", "4", "5"]),
    ],
)
def test_a_stream_goes_on_where_it_was_cut(
    caller: Caller, over: str, headers: dict[str, str], params: dict[str, int], ids: list[str]
) -> None:
    with caller.http.stream("GET", over, headers=STREAM | headers, params=params) as response:
        assert [frame["id"] for frame in frames(response)] == ids


def test_a_stream_follows_a_running_job(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(feed, "HEARTBEAT_SECONDS", 0.05)
    job = caller.submit()
    with caller.http.stream("GET", f"/v1/jobs/{job['id']}/events", headers=STREAM) as response:
        found = frames(response)
        assert next(found)["id"] == "1"
        waits = next(found)
        assert "id" not in waits
        fields = json.loads(waits["data"])
        assert fields.pop("seq") == 1
        assert isinstance(EVENT.validate_python(fields), WaitingEvent)
        claim = caller.service.claim_job(job["id"])
        found = (frame for frame in found if frame.get("event") != "waiting")
        assert next(found)["id"] == "2"
        assert "comment" in next(found), "of a job that runs, its worker says that it is alive"
        caller.service.report(claim, PhaseEvent(phase="scoring"))
        caller.service.finish(claim, Outcome("succeeded"))
        rest = [frame["id"] for frame in found if "id" in frame]
    assert rest == ["3", "4"]


def test_a_job_that_waits_is_told_how_many_come_first(caller: Caller) -> None:
    asked = caller.ready()
    while (other := caller.service.claim("cpu")) is not None:  # what other tests have left
        caller.service.finish(other, Outcome("cancelled"))

    def submit(**more: Any) -> dict[str, Any]:
        return dict(caller.http.post("/v1/jobs", json=asked | more).json())

    first = submit()
    caller.service.claim_job(first["id"])
    second, urgent = submit(), submit(priority=9)

    def waiting(job: dict[str, Any]) -> WaitingEvent | None:
        with caller.service.database.read() as session:
            return events.waiting(session, caller.project_id, job["id"], utcnow())

    assert waiting(first) is None
    found = waiting(second)
    assert found is not None
    assert found.ahead == 1
    assert found.running >= 1
    before = waiting(urgent)
    assert before is not None
    assert before.ahead == 0
    assert waiting({"id": "job_x"}) is None


def test_a_stream_is_never_silent_for_more_than_five_seconds() -> None:
    assert feed.HEARTBEAT_SECONDS + 2 * feed.POLL_SECONDS < 5


def test_a_job_shows_its_fraction_and_what_is_left(caller: Caller) -> None:
    job = caller.submit()
    claim = caller.service.claim_job(job["id"])

    def progress() -> dict[str, Any]:
        return dict(caller.http.get(f"/v1/jobs/{job['id']}").json()["progress"])

    whole = {"fraction": 0.25, "elapsed_seconds": 2.0, "eta_seconds": 6.0}
    caller.service.report(claim, ProgressEvent(phase="scoring", done=1, total=4, **whole))
    assert progress() == {"phase": "scoring", "done": 1, "total": 4, "message": "", **whole}
    caller.service.report(claim, PhaseEvent(phase="pruning"))
    assert progress() == {"phase": "pruning", "done": 0, "total": 0, "message": "", **whole}
    whole = {"fraction": 0.6, "elapsed_seconds": 9.0, "eta_seconds": 3.0}
    caller.service.report(claim, AliveEvent(phase="pruning", quiet_seconds=5.0, **whole))
    assert progress() == {"phase": "pruning", "done": 0, "total": 0, "message": "", **whole}


def test_a_client_that_goes_away_ends_its_stream(caller: Caller) -> None:
    streams = caller.service.app.state.service.gates.streams
    followed = caller.service.app.state.service.feed._followed
    job = caller.submit()
    with caller.http.stream("GET", f"/v1/jobs/{job['id']}/events", headers=STREAM) as response:
        found = frames(response)
        assert next(found)["id"] == "1"
        until(lambda: (caller.project_id, job["id"]) in followed)
        assert streams.inside[caller.project_id] == 1
    until(lambda: (caller.project_id, job["id"]) not in followed)
    until(lambda: not streams.inside[caller.project_id])


def test_a_stream_of_an_unknown_job_is_a_problem(caller: Caller) -> None:
    response = caller.http.get("/v1/jobs/job_x/events", headers=STREAM)
    assert_problem(response, 404, "not_found")
