"""Who waits for a job, a model or a dataset asks for it again and again."""

import asyncio
import inspect
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from sqlalchemy.exc import OperationalError

from api import reading, shown
from api.app import _ROUTES
from api.reading import BatchReader
from api.views import job_view
from pruning.errors import SecateurError
from pruning.events import ProgressEvent
from store.claims import Outcome
from store.lookups import Lookups
from store.queries import jobs, keys
from tests.api.conftest import Caller, Service, assert_problem


def test_a_job_is_shown_as_it_is_after_each_change(caller: Caller) -> None:
    """What is kept of a job must never be answered with once the job has changed."""
    service = caller.service
    job = caller.submit()
    path = f"/v1/jobs/{job['id']}"

    def shows(**some: Any) -> None:
        answer = caller.http.get(path)
        with service.database.read() as session:
            row = jobs.get(session, caller.project_id, job["id"])
            assert answer.content == job_view(row).model_dump_json().encode()
        values = answer.json()
        assert {name: values[name] for name in some} == some
        assert caller.http.get(path).content == answer.content
        assert (
            caller.http.get(path, headers={"if-none-match": answer.headers["etag"]}).status_code
            == 304
        )

    shows(state="queued")
    claim = service.claim_job(job["id"])
    shows(state="running", attempt=1)
    for done in (1, 2):
        service.report(claim, ProgressEvent(phase="scoring", done=done, total=4))
        shows(phase="scoring")
    caller.http.post(f"{path}/cancel")
    shows(cancel_requested=True)
    artifact = service.artifact("net.onnx", "onnx", b"smaller")
    service.finish(claim, Outcome("succeeded", artifacts=[artifact], summary={"sparsity": 0.5}))
    shows(state="succeeded", summary={"sparsity": 0.5})
    assert [a["name"] for a in caller.http.get(path).json()["artifacts"]] == ["net.onnx"]
    assert caller.http.delete(path).status_code == 204
    assert_problem(caller.http.get(path), 404, "not_found")


def test_an_etag_of_before_gets_the_whole_answer(caller: Caller) -> None:
    job = caller.submit()
    path = f"/v1/jobs/{job['id']}"
    before = caller.http.get(path).headers["etag"]
    caller.http.post(f"{path}/cancel")
    after = caller.http.get(path, headers={"if-none-match": before})
    assert after.status_code == 200
    assert after.json()["state"] == "cancelled"
    assert after.headers["etag"] != before
    unchanged = caller.http.get(path, headers={"if-none-match": f'"x", W/{after.headers["etag"]}'})
    assert (unchanged.status_code, unchanged.content) == (304, b"")


@pytest.mark.parametrize("kind", ["models", "datasets"])
def test_an_upload_is_shown_as_it_is_after_its_check(caller: Caller, kind: str) -> None:
    found = caller.http.post(f"/v1/{kind}", content=b"some bytes", params={"name": "x"}).json()
    path = f"/v1/{kind}/{found['id']}"
    first = caller.http.get(path)
    assert first.json() == found
    caller.service.settle()
    second = caller.http.get(path, headers={"if-none-match": first.headers["etag"]})
    assert second.json()["state"] == "rejected"
    assert caller.http.delete(path).status_code == 204
    assert_problem(caller.http.get(path), 404, "not_found")


def test_what_was_shown_to_its_owner_is_shown_to_nobody_else(
    caller: Caller, stranger: Caller
) -> None:
    job = caller.submit()
    asked = {"models": job["model"], "datasets": job["data"]["calibration"], "jobs": job["id"]}
    for kind, found in asked.items():
        assert caller.http.get(f"/v1/{kind}/{found}").status_code == 200
        assert_problem(stranger.http.get(f"/v1/{kind}/{found}"), 404, "not_found")


def test_no_more_is_kept_than_there_is_room_for(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shown, "KEPT_BYTES", 3_000)
    asked = caller.ready()
    ids = [caller.http.post("/v1/jobs", json=asked).json()["id"] for _ in range(3)]
    for _ in range(2):
        for job_id in ids:
            assert caller.http.get(f"/v1/jobs/{job_id}").json()["id"] == job_id
    rows = caller.service.app.state.service.shown.jobs
    assert rows._bytes == sum(len(kept.body) for kept in rows._kept.values()) <= 3_000


def test_a_key_that_is_revoked_is_refused_at_once(caller: Caller) -> None:
    made = caller.http.post("/v1/keys", json={"name": "short"}).json()
    with caller.service.client(made["secret"]) as http:
        assert http.get("/v1/limits").status_code == 200
        with caller.service.database.write() as session:  # as another process would
            keys.delete(session, caller.project_id, made["id"])
        assert_problem(http.get("/v1/limits"), 401, "unauthenticated")


def test_no_dependency_is_run_in_a_thread() -> None:
    def needed(dependant: Dependant) -> Iterator[Any]:
        for inner in dependant.dependencies:
            yield inner.call
            yield from needed(inner)

    routes = [r for module in _ROUTES for r in module.router.routes if isinstance(r, APIRoute)]
    calls = {call for route in routes for call in needed(route.dependant)}
    assert calls
    assert [call for call in calls if not inspect.iscoroutinefunction(call)] == []


def test_questions_that_wait_are_answered_by_one_query(service: Service) -> None:
    asked: list[Sequence[str]] = []
    busy, go_on = threading.Event(), threading.Event()

    def find(_lookups: Lookups, keys: Sequence[str]) -> dict[str, str]:
        asked.append(list(keys))
        busy.set()
        assert go_on.wait(10)
        return {key: key.upper() for key in keys if key != "nobody"}

    async def ask() -> list[str | None]:
        reader = BatchReader(service.database)
        first = asyncio.create_task(reader.ask(find, "first"))
        await asyncio.to_thread(busy.wait, 10)
        rest = [asyncio.create_task(reader.ask(find, key)) for key in ("a", "b", "a", "nobody")]
        await asyncio.sleep(0)
        rest[1].cancel()
        asyncio.get_running_loop().call_later(0.05, go_on.set)
        answers = await asyncio.gather(first, *rest, return_exceptions=True)
        reader.close()
        return [None if isinstance(a, asyncio.CancelledError) else a for a in answers]

    assert asyncio.run(ask()) == ["FIRST", "A", None, "A", None]
    assert asked == [["first"], ["a", "b", "nobody"]]


def test_what_goes_wrong_is_told_to_all_who_wait_and_the_next_is_answered(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_lookups: Lookups, keys: Sequence[str]) -> dict[str, str]:
        raise SecateurError("database_busy", "Not now.")

    def find(_lookups: Lookups, keys: Sequence[str]) -> dict[str, str]:
        return {key: key for key in keys}

    async def ask() -> None:
        reader = BatchReader(service.database)
        answers = await asyncio.gather(
            *(reader.ask(broken, key) for key in "ab"), return_exceptions=True
        )
        assert [getattr(a, "code", a) for a in answers] == ["database_busy"] * 2
        assert await reader.ask(find, "c") == "c"
        monkeypatch.setattr(reading, "MOST_WAITING", 1)
        more = await asyncio.gather(*(reader.ask(find, k) for k in "de"), return_exceptions=True)
        assert [getattr(a, "code", a) for a in more] == ["d", "overloaded"]
        reader.close()

    asyncio.run(ask())


def test_a_lookup_that_fails_at_once_is_answered_by_the_thread(service: Service) -> None:
    """The event loop never waits for a file that is locked."""
    threads: list[str] = []

    def find(lookups: Lookups, keys: Sequence[str]) -> dict[str, str]:
        threads.append(threading.current_thread().name)
        if len(threads) == 1:
            raise OperationalError("SELECT", None, Exception("database is locked"))
        return {key: key for key in keys}

    async def ask() -> tuple[str | None, str | None]:
        reader = BatchReader(service.database)
        found = await reader.look_up(find, "a"), await reader.look_up(find, "b")
        reader.close()
        return found

    assert asyncio.run(ask()) == ("a", "b")
    assert threads == ["MainThread", "reader", "MainThread"]
