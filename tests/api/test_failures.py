"""What failed later says the same as a problem does, wherever it is told."""

from typing import Any

import httpx

from api.schemas import Failure
from pruning.errors import CODES, SecateurError
from store import leases
from store.claims import Outcome
from store.clock import utcnow
from tests.api.conftest import Caller, assert_problem

FIELDS = {"type", "title", "code", "detail", "message", "where", "hint", "details"}
ERROR = SecateurError("wall_limit", "It ran for 9 s.", where="job", hint="Use less.", seconds=9)


def assert_failure(found: dict[str, Any], code: str) -> None:
    assert set(found) == FIELDS
    assert found["code"] == code
    assert found["type"] == f"/problems/{code}"
    assert found["title"] == CODES[code][1]
    assert found["detail"] == found["message"] != ""
    Failure.model_validate(found)


def lost(caller: Caller, job: str, times: int) -> None:
    for _ in range(times):
        claim = caller.service.claim_job(job)
        with caller.service.database.write() as session:
            leases.lose(session, claim, ERROR.as_dict(), utcnow(), max_attempts=times)


def test_job_attempt_and_events_carry_the_fields_of_a_problem(caller: Caller) -> None:
    job = caller.submit()["id"]
    lost(caller, job, 1)
    found = caller.http.get(f"/v1/jobs/{job}").json()
    assert_failure(found["error"], "attempts_exhausted")
    assert_failure(found["error"]["details"]["last_error"], "wall_limit")
    (attempt,) = found["attempts"]
    assert_failure(attempt["error"], "attempts_exhausted")
    events = caller.http.get(f"/v1/jobs/{job}/events").json()["data"]
    assert_failure(events[-1]["error"], "attempts_exhausted")
    assert_failure(events[-1]["error"]["details"]["last_error"], "wall_limit")
    headers = {"accept": "text/event-stream"}
    stream = caller.http.get(f"/v1/jobs/{job}/events", headers=headers).text
    assert '"title": "Given up after repeated attempts"' in stream


def test_a_rejected_upload_says_it_too_and_so_does_the_job_it_prevents(caller: Caller) -> None:
    ready = caller.ready()
    bad = caller.http.post("/v1/models", content=b"bad").json()["id"]
    caller.service.settle()
    assert_failure(caller.http.get(f"/v1/models/{bad}").json()["error"], "model_unreadable")
    response: httpx.Response = caller.http.post("/v1/jobs", json=ready | {"model": bad})
    problem = assert_problem(response, 409, "model_rejected")
    assert_failure(problem["details"]["reason"], "model_unreadable")


def test_an_error_of_a_later_version_is_told_as_it_is(caller: Caller) -> None:
    job = caller.submit()["id"]
    claim = caller.service.claim_job(job)
    caller.service.finish(claim, Outcome("failed", error={"code": "not_invented", "message": "?"}))
    found = caller.http.get(f"/v1/jobs/{job}").json()["error"]
    assert (found["code"], found["title"], found["detail"]) == ("not_invented", "", "?")
