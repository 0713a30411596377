"""Who may ask, decided before a byte of the body is read."""

import asyncio
import socket
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.api.conftest import Caller, Service, assert_problem

WRONG = "sct_" + "A" * 43


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": f"Bearer {WRONG}"},
        {"authorization": WRONG},
        {"authorization": f"Basic {WRONG}"},
        {"authorization": "Bearer sct_" + "A" * 5000},
        {"authorization": b"Bearer sct_\xff\xfe"},
    ],
)
def test_a_request_without_a_known_key_is_refused(service: Service, headers: Any) -> None:
    with service.client(None) as http:
        response = http.get("/v1/models", headers=headers)
    problem = assert_problem(response, 401, "unauthenticated")
    assert response.headers["www-authenticate"].startswith("Bearer")
    assert problem["hint"]


def test_two_authorization_headers_are_refused(caller: Caller) -> None:
    one = ("authorization", f"Bearer {caller.secret}")
    with caller.service.client(None) as http:
        assert_problem(http.get("/v1/models", headers=[one, one]), 401, "unauthenticated")
        assert http.get("/v1/models", headers=[one]).status_code == 200


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"])
def test_open_paths_need_no_key(service: Service, path: str) -> None:
    with service.client(None) as http:
        assert http.get(path).status_code == 200


@pytest.mark.parametrize("path", ["/v1/limits", "/nothing", "/healthz/", "//healthz", "/metrics/x"])
def test_every_other_path_needs_one(service: Service, path: str) -> None:
    with service.client(None) as http:
        assert http.get(service.url + path).status_code == 401


@pytest.mark.parametrize("path", ["/v1/models", "/v1/datasets", "/v1/jobs"])
def test_nothing_of_the_body_is_asked_for_with_a_wrong_key(service: Service, path: str) -> None:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        raise AssertionError("the body was read")

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"authorization", f"Bearer {WRONG}".encode()), (b"content-length", b"9")],
    }
    asyncio.run(service.app(scope, receive, send))
    assert sent[0]["status"] == 401


def ask(service: Service, secret: str) -> bytes:
    """Sends the headers of an upload that waits for 100 Continue; what comes back at first."""
    address = urlsplit(service.url)
    with socket.create_connection((address.hostname, address.port), timeout=5) as raw:
        raw.sendall(
            b"POST /v1/models HTTP/1.1\r\nHost: test\r\nContent-Length: 1000\r\n"
            b"Expect: 100-continue\r\nAuthorization: Bearer " + secret.encode() + b"\r\n\r\n"
        )
        return raw.recv(200)


def test_the_answer_comes_when_only_the_headers_were_sent(caller: Caller) -> None:
    assert ask(caller.service, WRONG).startswith(b"HTTP/1.1 401 ")
    assert ask(caller.service, caller.secret).startswith(b"HTTP/1.1 100 ")


def test_a_revoked_key_is_refused_at_once(caller: Caller) -> None:
    made = caller.http.post("/v1/keys", json={"name": "short-lived"}).json()
    with caller.service.client(made["secret"]) as http:
        assert http.get("/v1/keys").status_code == 200
        assert caller.http.delete(f"/v1/keys/{made['id']}").status_code == 204
        assert_problem(http.get("/v1/keys"), 401, "unauthenticated")
