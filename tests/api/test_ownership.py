"""What belongs to somebody else looks exactly as if it did not exist."""

from typing import Any

import pytest

from store.claims import Outcome
from store.ids import new_id
from tests.api.conftest import DATASET_FACTS, MODEL_FACTS, Caller, assert_problem


def without_ids(problem: dict[str, Any], *ids: str) -> str:
    text = repr({k: v for k, v in problem.items() if k != "request_id"})
    for each in ids:
        text = text.replace(each, "ID")
    return text


ROUTES = [
    ("GET", "/v1/models/{model}"),
    ("DELETE", "/v1/models/{model}"),
    ("GET", "/v1/datasets/{dataset}"),
    ("DELETE", "/v1/datasets/{dataset}"),
    ("GET", "/v1/jobs/{job}"),
    ("DELETE", "/v1/jobs/{job}"),
    ("POST", "/v1/jobs/{job}/cancel"),
    ("POST", "/v1/jobs/{job}/retry"),
    ("GET", "/v1/jobs/{job}/events"),
    ("GET", "/v1/jobs/{job}/report"),
    ("GET", "/v1/jobs/{job}/artifacts"),
    ("GET", "/v1/jobs/{job}/artifacts/report.json"),
    ("DELETE", "/v1/keys/{key}"),
]


@pytest.fixture
def theirs(stranger: Caller) -> dict[str, str]:
    job = stranger.submit()
    claim = stranger.service.claim_job(job["id"])
    report = stranger.service.artifact("report.json", "report", b"{}")
    stranger.service.finish(claim, Outcome("succeeded", artifacts=(report,)))
    key = stranger.http.post("/v1/keys", json={}).json()["id"]
    dataset = job["data"]["calibration"]
    return {"model": job["model"], "dataset": dataset, "job": job["id"], "key": key}


def test_other_peoples_ids_are_answered_as_unknown_ones(
    caller: Caller, theirs: dict[str, str]
) -> None:
    unknown = {kind: new_id(kind) for kind in theirs}
    for method, path in ROUTES:
        there = caller.http.request(method, path.format(**theirs))
        nowhere = caller.http.request(method, path.format(**unknown))
        first = assert_problem(there, 404, "not_found")
        second = assert_problem(nowhere, 404, "not_found")
        assert without_ids(first, *theirs.values()) == without_ids(second, *unknown.values())


@pytest.mark.parametrize("bad", ["x", "%00", "%F0%9F%8C%B3", "job_" + "z" * 3000, "%ED%A0%80"])
def test_malformed_ids_are_not_found(caller: Caller, bad: str) -> None:
    for method, path in ROUTES:
        response = caller.http.request(
            method, path.format(model=bad, dataset=bad, job=bad, key=bad)
        )
        assert (response.status_code, response.json()["code"]) == (404, "not_found"), path


def test_a_job_can_not_be_made_of_other_peoples_things(
    caller: Caller, theirs: dict[str, str]
) -> None:
    model = caller.upload("models", b"m", MODEL_FACTS)
    dataset = caller.upload("datasets", b"d", DATASET_FACTS)
    for body, where in (
        ({"model": theirs["model"], "data": {"calibration": dataset}}, "model"),
        ({"model": "nonsense", "data": {"calibration": dataset}}, "model"),
        ({"model": model, "data": {"calibration": theirs["dataset"]}}, "data.calibration"),
        (
            {"model": model, "data": {"calibration": dataset, "training": theirs["dataset"]}},
            "data.training",
        ),
    ):
        for path in ("/v1/jobs", "/v1/plans"):
            problem = assert_problem(caller.http.post(path, json=body), 404, "not_found")
            assert problem["where"] == where


def test_lists_show_only_what_is_ones_own(caller: Caller, theirs: dict[str, str]) -> None:
    for path in ("/v1/models", "/v1/datasets", "/v1/jobs"):
        assert caller.http.get(path).json()["data"] == []
    assert len(caller.http.get("/v1/keys").json()["data"]) == 1
