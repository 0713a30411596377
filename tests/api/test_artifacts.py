"""Downloads: whole, in part, conditional; and the report in both forms."""

import hashlib
import os
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from store.claims import Outcome
from tests.api.conftest import Caller, assert_problem

CONTENT = bytes(range(256)) * 1000
ETAG = f'"{hashlib.sha256(CONTENT).hexdigest()}"'
NAME = "lenet 5é.onnx"


@pytest.fixture
def job(caller: Caller) -> str:
    found = caller.submit()
    claim = caller.service.claim_job(found["id"])
    service = caller.service
    artifacts = (
        service.artifact(NAME, "onnx", CONTENT),
        service.artifact("report.json", "report", b'{"schema_version": "1.0"}'),
        service.artifact("report.html", "html", b"<!doctype html><title>r</title>"),
    )
    service.finish(claim, Outcome("succeeded", artifacts=artifacts, summary={"sparsity": 0.5}))
    return f"/v1/jobs/{found['id']}"


def download(caller: Caller, job: str, method: str = "GET", **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return caller.http.request(method, f"{job}/artifacts/{NAME}", headers=named)


def test_artifacts_are_listed_with_their_addresses(caller: Caller, job: str) -> None:
    listed = caller.http.get(f"{job}/artifacts").json()["data"]
    assert [item["name"] for item in listed] == [NAME, "report.html", "report.json"]
    assert caller.http.get(job).json()["artifacts"] == listed
    for item in listed:
        content = caller.http.get(item["url"]).content
        assert len(content) == item["bytes"]
        assert hashlib.sha256(content).hexdigest() == item["sha256"]


def test_a_download_is_complete_and_named(caller: Caller, job: str) -> None:
    response = download(caller, job)
    assert response.status_code == 200
    assert response.content == CONTENT
    assert response.headers["etag"] == ETAG
    assert response.headers["accept-ranges"] == "bytes"
    assert response.headers["x-content-type-options"] == "nosniff"
    disposition = response.headers["content-disposition"]
    assert disposition == "attachment; filename*=utf-8''lenet%205%C3%A9.onnx"


def test_head_says_the_same_without_the_body(caller: Caller, job: str) -> None:
    whole, head = download(caller, job), download(caller, job, "HEAD")
    assert (head.status_code, head.content) == (200, b"")
    volatile = ("date", "x-request-id")
    for name in whole.headers:
        if name not in volatile:
            assert head.headers[name] == whole.headers[name]


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=0-9", 0, 9),
        ("bytes=100-", 100, len(CONTENT) - 1),
        ("bytes=-5", len(CONTENT) - 5, len(CONTENT) - 1),
        ("BYTES=7-7", 7, 7),
        ("bytes=10-99999999", 10, len(CONTENT) - 1),
        ("bytes=-99999999", 0, len(CONTENT) - 1),
    ],
)
def test_a_range_is_served(caller: Caller, job: str, asked: str, first: int, last: int) -> None:
    response = download(caller, job, range=asked)
    assert response.status_code == 206
    assert response.content == CONTENT[first : last + 1]
    assert response.headers["content-range"] == f"bytes {first}-{last}/{len(CONTENT)}"
    assert response.headers["etag"] == ETAG


@pytest.mark.parametrize("asked", [f"bytes={len(CONTENT)}-", "bytes=999999999-", "bytes=-0"])
def test_a_range_outside_is_a_problem(caller: Caller, job: str, asked: str) -> None:
    response = download(caller, job, range=asked)
    assert_problem(response, 416, "range_not_satisfiable")
    assert response.headers["content-range"] == f"bytes */{len(CONTENT)}"


@pytest.mark.parametrize(
    "asked", ["bytes=9-1", "bytes=x-y", "items=0-1", "bytes", "bytes=0-1,5-6", "bytes=-", ""]
)
def test_a_range_that_means_nothing_here_is_ignored(caller: Caller, job: str, asked: str) -> None:
    response = download(caller, job, range=asked)
    assert (response.status_code, response.content) == (200, CONTENT)


def test_an_interrupted_download_goes_on_only_if_the_file_is_the_same(
    caller: Caller, job: str
) -> None:
    assert download(caller, job, range="bytes=5-", if_range=ETAG).status_code == 206
    for other in ('"other"', f"W/{ETAG}"):
        response = download(caller, job, range="bytes=5-", if_range=other)
        assert (response.status_code, response.content) == (200, CONTENT)
    beyond = download(caller, job, range="bytes=999999999-", if_range='"other"')
    assert beyond.status_code == 200


@pytest.mark.parametrize("condition", [ETAG, f'"a", {ETAG}', f"W/{ETAG}", "*"])
def test_an_unchanged_file_is_not_sent_again(caller: Caller, job: str, condition: str) -> None:
    response = download(caller, job, if_none_match=condition)
    assert (response.status_code, response.content) == (304, b"")
    assert response.headers["etag"] == ETAG


def test_a_different_etag_gets_the_file(caller: Caller, job: str) -> None:
    assert download(caller, job, if_none_match='"other"').content == CONTENT


@pytest.mark.parametrize("name", ["nothing.onnx", "..%2F..%2Fetc%2Fpasswd", "%00"])
def test_an_unknown_artifact_is_not_found(caller: Caller, job: str, name: str) -> None:
    response = caller.http.get(f"{job}/artifacts/{name}")
    assert (response.status_code, response.json()["code"]) == (404, "not_found")


def test_the_report_is_json_unless_html_is_asked_for(caller: Caller, job: str) -> None:
    def get(accept: str = "*/*", **params: Any) -> httpx.Response:
        return caller.http.get(f"{job}/report", headers={"accept": accept}, params=params)

    for plain in (get(), get("application/json"), get("text/html;q=0.5, */*"), get(format="json")):
        assert plain.headers["content-type"] == "application/json"
        assert plain.json() == {"schema_version": "1.0"}
    browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
    for page in (get("text/html"), get(browser), get("application/json", format="html")):
        assert page.headers["content-type"].startswith("text/html")
        policy = page.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:;")
        assert "script-src" not in policy
        assert page.headers["x-content-type-options"] == "nosniff"
        assert page.headers["content-disposition"].startswith("inline")
    response = get(format="pdf")
    assert_problem(response, 422, "invalid_request")


def test_html_among_the_artifacts_has_the_same_policy(caller: Caller, job: str) -> None:
    response = caller.http.get(f"{job}/artifacts/report.html")
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert response.headers["content-disposition"].startswith("attachment")


def test_there_is_no_report_before_the_end_nor_after_a_failure(caller: Caller) -> None:
    job = caller.submit()
    path = f"/v1/jobs/{job['id']}"
    assert_problem(caller.http.get(f"{path}/report"), 409, "not_ready")
    assert caller.http.get(f"{path}/artifacts").json() == {"data": []}
    claim = caller.service.claim_job(job["id"])
    caller.service.finish(claim, Outcome("failed", error={"code": "stalled", "message": "s"}))
    problem = assert_problem(caller.http.get(f"{path}/report"), 409, "not_ready")
    assert "failed" in problem["detail"]


def test_a_lost_file_is_our_error_and_tells_nothing(caller: Caller) -> None:
    content = os.urandom(64)
    found = caller.submit()
    claim = caller.service.claim_job(found["id"])
    artifact = caller.service.artifact("lost.bin", "onnx", content)
    caller.service.finish(claim, Outcome("succeeded", artifacts=(artifact,)))
    path = caller.service.blobs.path(artifact.blob.sha256)
    path.unlink()
    response = caller.http.get(f"/v1/jobs/{found['id']}/artifacts/lost.bin")
    problem = assert_problem(response, 500, "file_damaged")
    assert (problem["where"], "retry" in problem["hint"]) == ("lost.bin", True)
    assert str(path) not in response.text


def test_downloads_that_take_their_time_hold_up_nothing_else(caller: Caller) -> None:
    """One takes as long as its client likes to read, and lists are asked for meanwhile."""
    service, large = caller.service, os.urandom(8 << 20)
    found = caller.submit()
    claim = service.claim_job(found["id"])
    artifacts = (service.artifact("large.onnx", "onnx", large),)
    service.finish(claim, Outcome("succeeded", artifacts=artifacts, summary={"sparsity": 0.5}))
    limits = httpx.Limits(max_connections=None)
    with ExitStack() as open_ones, service.client(caller.secret, limits=limits) as http:
        for _ in range(16):  # more than reads may be at work
            one = http.stream("GET", f"/v1/jobs/{found['id']}/artifacts/large.onnx")
            assert open_ones.enter_context(one).status_code == 200
        assert caller.http.get("/v1/jobs", timeout=4).status_code == 200
