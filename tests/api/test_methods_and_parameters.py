"""HEAD, Allow, headers of every answer, and parameters that nobody knows."""

import time

import httpx
import pytest

from tests.api.conftest import Caller, Service, assert_problem


def test_allow_lists_every_method_of_the_path(caller: Caller) -> None:
    for path, methods in (
        ("/v1/jobs", "GET, HEAD, POST"),
        ("/v1/jobs/x", "DELETE, GET, HEAD"),
        ("/v1/plans", "POST"),
        ("/v1/keys/x", "DELETE"),
        ("/v1/jobs/x/artifacts/a/b", "GET, HEAD"),
        ("/healthz", "GET, HEAD"),
    ):
        for method in ("PATCH", "OPTIONS", "TRACE", "PUT"):
            response = caller.http.request(method, path)
            assert_problem(response, 405, "method_not_allowed")
            assert response.headers["allow"] == methods


def test_head_answers_as_get_without_a_body(caller: Caller) -> None:
    job = caller.submit()
    for path in ("/v1/jobs", f"/v1/jobs/{job['id']}", "/v1/limits", "/healthz", "/metrics"):
        head, get = caller.http.head(path), caller.http.get(path)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-type"] == get.headers["content-type"]
    assert caller.http.head("/v1/jobs/nothing").status_code == 404
    assert caller.http.head("/v1/plans").status_code == 405
    assert 'method="HEAD",route="/v1/limits"' in caller.http.get("/metrics").text


def test_head_of_a_stream_ends_at_once(caller: Caller) -> None:
    job = caller.submit()
    started = time.monotonic()
    response = caller.http.head(
        f"/v1/jobs/{job['id']}/events", headers={"accept": "text/event-stream"}
    )
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    assert time.monotonic() - started < 5


def test_every_answer_is_kept_from_being_framed_or_guessed(caller: Caller) -> None:
    http = caller.http
    answers = [
        http.get("/v1/limits"),
        http.get("/v1/nothing"),
        http.put("/v1/limits"),
        http.post("/v1/plans", content=b"{"),
        http.get("/healthz"),
        http.get("/openapi.json"),
        http.get("/docs"),
        http.delete("/v1/keys/x"),
        httpx.get(f"{caller.service.url}/v1/limits"),
    ]
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]


def test_the_reference_needs_nothing_from_elsewhere(service: Service) -> None:
    page = httpx.get(f"{service.url}/docs")
    policy = page.headers["content-security-policy"]
    assert "script-src 'self';" in policy
    assert "http" not in policy
    for quoted in page.text.split('"'):
        if quoted.startswith("/docs/"):
            part = httpx.get(service.url + quoted)
            assert part.status_code == 200
            assert part.headers["content-type"].split(";")[0] in ("text/javascript", "text/css")
        assert "//" not in quoted


def test_an_unknown_parameter_is_refused_with_the_near_miss(caller: Caller) -> None:
    found = assert_problem(caller.http.get("/v1/jobs?limt=5"), 422, "invalid_request")
    assert found["where"] == "limt"
    assert "'limit'" in found["detail"]
    found = assert_problem(caller.http.get("/v1/limits?a=1&b=2"), 422, "invalid_request")
    assert [entry["where"] for entry in found["errors"]] == ["a", "b"]
    assert caller.http.get("/healthz?probe=1").status_code == 200


def test_an_unknown_parameter_is_refused_before_the_upload(caller: Caller) -> None:
    response = caller.http.post("/v1/models?nmae=x", content=b"x" * 1000)
    assert "'name'" in assert_problem(response, 422, "invalid_request")["detail"]
    assert caller.http.get("/v1/models").json()["data"] == []


def test_a_parameter_with_one_value_is_not_given_twice(caller: Caller) -> None:
    found = assert_problem(caller.http.get("/v1/jobs?limit=1&limit=2"), 422, "invalid_request")
    assert found["where"] == "limit"


def test_thousands_of_unknown_parameters_cost_nothing(caller: Caller) -> None:
    query = "&".join(f"limi{n}=" for n in range(1500))
    found = assert_problem(caller.http.get(f"/v1/jobs?{query}"), 422, "invalid_request")
    assert len(found["errors"]) <= 20
    long = "limit" * 2000
    found = assert_problem(caller.http.get("/v1/jobs", params={long: 1}), 422, "invalid_request")
    assert len(found["detail"]) < 300


@pytest.mark.parametrize(
    "body",
    [
        b'{"model": "a", "data": {"calibration": "b"}, "priority": 1e999}',
        b'{"model": "a", "data": {"calibration": "b"}, "spec": {"seed": NaN}}',
        b'{"model": "a", "data": {"calibration": "b"}, "spec": {"seed": -Infinity}}',
        b'{"model": "a", "data": {"calibration": "b"}, "spec": {"seed": 1' + b"0" * 400 + b".0}}",
        '{"name": "é"}'.encode("utf-16"),
        b'{"name": "\\ud800"}',
        b'{"model": "a", "data": {"calibration": "b"}, "spec": {"\\uDC00x": 1}}',
        b'{"model": ' + b"[" * 3000 + b"]" * 3000 + b"}",
    ],
    ids=["overflow", "nan", "infinity", "digits", "utf-16", "value", "key", "deep"],
)
def test_what_python_alone_takes_for_json_is_refused(caller: Caller, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    for path in ("/v1/jobs", "/v1/plans"):
        assert_problem(caller.http.post(path, content=body, headers=headers), 400, "invalid_json")


def test_a_whole_pair_of_surrogates_is_a_character(caller: Caller) -> None:
    headers = {"content-type": "application/json"}
    made = caller.http.post("/v1/keys", content=b'{"name": "\\ud83d\\ude00"}', headers=headers)
    assert (made.status_code, made.json()["name"]) == (201, "\U0001f600")
