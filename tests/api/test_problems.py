"""Every error is a problem, whoever raised it."""

from collections.abc import Iterator

import pytest

from api.problems import ProblemResponse, unexpected
from pruning.errors import SecateurError
from tests.api.conftest import Caller, assert_problem


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[" * 3_000,
        b'{"model": NaN',
        b"\xff\xfe",
        b'{"priority": ' + b"9" * 5000 + b"}",
    ],
    ids=["cut", "deep", "nan", "bytes", "digits"],
)
def test_unreadable_json_is_a_problem(caller: Caller, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    response = caller.http.post("/v1/jobs", content=body, headers=headers)
    problem = assert_problem(response, 400, "invalid_json")
    assert "application/json" in problem["hint"]


def test_a_missing_body_is_a_problem(caller: Caller) -> None:
    assert_problem(caller.http.post("/v1/jobs"), 422, "invalid_request")


def test_json_under_another_content_type_says_so(caller: Caller) -> None:
    headers = {"content-type": "text/plain"}
    response = caller.http.post("/v1/jobs", content=b"{}", headers=headers)
    assert "application/json" in assert_problem(response, 422, "invalid_request")["hint"]


def test_an_unknown_path_is_a_problem(caller: Caller) -> None:
    for path in ("/", "/v1", "/v1/nothing", "/v1/jobs/", "/v1/models/x/y"):
        assert assert_problem(caller.http.get(path), 404, "not_found")["hint"]


def test_an_unknown_method_is_a_problem_that_names_the_known_ones(caller: Caller) -> None:
    response = caller.http.put("/v1/limits", json={})
    assert_problem(response, 405, "method_not_allowed")
    assert "GET" in response.headers["allow"]


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/plans", "/v1/keys", "/v1/jobs/x/cancel"])
@pytest.mark.parametrize("announced", [True, False])
def test_a_json_body_over_a_mebibyte_is_refused(caller: Caller, path: str, announced: bool) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(17):
            yield b" " * 65536

    content = b" " * (17 * 65536) if announced else pieces()
    response = caller.http.post(path, content=content)
    assert assert_problem(response, 413, "too_large")["details"]["limit"] == 1 << 20


def test_a_short_request_id_is_kept_and_a_strange_one_replaced(caller: Caller) -> None:
    def send(given: str) -> str:
        response = caller.http.get("/v1/limits", headers={"x-request-id": given})
        return response.headers["x-request-id"]

    assert send("trace-17_b") == "trace-17_b"
    for strange in ("", "a b", "x" * 65, '"><script>'):
        assert send(strange).startswith("req_")
    assert send("") != send("")


def test_a_very_long_place_is_cut(caller: Caller) -> None:
    body = {"x" * 100_000: 1, **{f"y{n}": 1 for n in range(1000)}}
    problem = assert_problem(caller.http.post("/v1/plans", json=body), 422, "invalid_request")
    assert len(problem["where"]) <= 200
    assert len(problem["errors"]) <= 50
    assert len(problem["detail"]) < 1000


def test_a_path_makes_no_lines_of_its_own_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    scope = {"method": "GET", "path": "/v1/jobs/x\n2026 ERROR secateur.api: forged"}
    unexpected(scope, RuntimeError("boom"))
    (record,) = caplog.records
    assert "\n" not in record.getMessage()


@pytest.mark.parametrize(
    ("code", "given", "seconds"),
    [
        ("overloaded", {"retry_after": 2}, "2"),
        ("overloaded", {"retry_after": 0.2}, "1"),
        ("file_damaged", {"retry_after": 30}, "30"),
        ("overloaded", {}, "5"),
        ("unavailable", {}, "5"),
        ("database_busy", {}, "5"),
        ("storage_full", {}, "60"),
        ("too_many_requests", {}, "10"),
        ("too_many_jobs", {}, "10"),
        ("file_damaged", {}, None),
        ("conflict", {}, None),
    ],
)
def test_an_answer_that_asks_to_come_back_says_when(
    code: str, given: dict[str, float], seconds: str | None
) -> None:
    response = ProblemResponse(SecateurError(code, "Not now.", **given), {"path": "/"})
    assert response.headers.get("retry-after") == seconds
