"""Many requests at the same moment: each is answered, those over the limit at once and with when
to come back, and whoever asks for something else notices little.
"""

import asyncio
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from benchmarks.uploads_at_once import send
from secateur import Client as Library
from tests.api.conftest import Caller
from tests.security.raw_http import Server, serve

LONG = os.environ.get("SECATEUR_FAULTS") == "long"
UPLOADS = 1_000 if LONG else 120
SIZE = 1_000_000
LIMITS = {
    "uploads_limit": 6,
    "uploads_waiting_limit": 20,
    "upload_bytes_limit": 40_000_000,
    "gate_seconds": 1.0,
    "upload_idle_seconds": 30.0,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(tmp_path_factory.mktemp("many"), **LIMITS) as running:
        yield running


@contextmanager
def watched(url: str) -> Iterator[list[float]]:
    """Asks /healthz over and over meanwhile; the seconds that each answer took."""
    took: list[float] = []
    over = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=url, timeout=30, verify=False) as http:
            while not over.is_set():
                begin = time.perf_counter()
                assert http.get("/healthz").status_code == 200
                took.append(time.perf_counter() - begin)
                time.sleep(0.01)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield took
    finally:
        over.set()
        thread.join()


@pytest.fixture
def process(server: Server, tmp_path: Path) -> Iterator[tuple[psutil.Process, str]]:
    """The API in a process of its own on the same store, so that its memory can be told."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = server.service.settings
    env = os.environ | {f"SECATEUR_{name.upper()}": str(value) for name, value in LIMITS.items()}
    env |= {
        "SECATEUR_DATA_DIR": str(tmp_path),
        "SECATEUR_DATABASE_URL": settings.database_url,
        "SECATEUR_LOG_LEVEL": "error",
    }
    started = subprocess.Popen([sys.executable, "-m", "api", "--port", str(port)], env=env)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                httpx.get(f"{url}/healthz")
                break
            except httpx.ConnectError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield psutil.Process(started.pid), url
    finally:
        started.terminate()
        started.wait(20)


def test_uploads_at_once_are_taken_or_told_when_to_come_back(
    server: Server, process: tuple[psutil.Process, str]
) -> None:
    api, url = process
    before, most = api.memory_info().rss, 0
    common = os.urandom(SIZE - 20)

    async def all_at_once() -> list[tuple[int, bool, float]]:
        nonlocal most
        bodies = [b"PK\x03\x04" + b"%016d" % n + common for n in range(UPLOADS)]
        sending = asyncio.gather(
            *(send(url, server.secret, body, n) for n, body in enumerate(bodies))
        )
        while not sending.done():
            most = max(most, api.memory_info().rss)
            await asyncio.sleep(0.02)
        return await sending

    with watched(url) as took:
        answers = asyncio.run(all_at_once())
    statuses = Counter(status for status, _, _ in answers)
    assert set(statuses) <= {201, 503}, statuses
    assert statuses[201] >= 6
    assert statuses[503], "more than there are places and room to wait"
    assert all(told for status, told, _ in answers if status == 503)
    assert most - before < 120_000_000
    assert sorted(took)[int(0.9 * len(took))] < 0.5

    with Library(url, server.secret) as client, ThreadPoolExecutor(12) as pool:
        sent = pool.map(
            lambda n: client.upload_dataset(b"PK\x03\x04again%d" % n, f"again{n}.npz"), range(24)
        )
        assert len({upload.id for upload in sent}) == 24


@contextmanager
def held_uploads(server: Server, caller: Caller, count: int) -> Iterator[None]:
    """Uploads that have begun and do not go on."""
    with ExitStack() as stack:
        gate = server.service.app.state.service.gates.uploads
        for _ in range(count):
            client = stack.enter_context(server.client())
            client.send(
                b"POST /v1/models?name=x.onnx HTTP/1.1\r\nHost: here\r\nContent-Length: 9000\r\n"
                b"Authorization: Bearer " + caller.secret.encode() + b"\r\n\r\nsome"
            )
        deadline = time.monotonic() + 10
        while gate.inside[caller.project_id] < count:
            assert time.monotonic() < deadline, (gate.inside, gate.waiting)
            time.sleep(0.01)
        yield


def test_nothing_of_a_body_is_asked_for_before_there_is_a_place(server: Server) -> None:
    with server.caller() as caller, held_uploads(server, caller, 3):
        ask = server.head("POST /v1/models", "Content-Length: 5000", "Expect: 100-continue")
        ask = ask.replace(server.secret.encode(), caller.secret.encode())
        begin = time.monotonic()
        answer = server.exchange(ask, silent=5)
        assert answer.statuses == [503], "no 100 before it"
        assert int(answer.header("retry-after") or 0) >= 1
        assert time.monotonic() - begin < 5


def test_uploads_of_one_project_leave_room_for_others_and_for_everything_else(
    server: Server,
) -> None:
    with server.caller() as one, held_uploads(server, one, 3), server.caller() as other:
        refused = one.http.post("/v1/models", content=b"bytes")
        assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
        assert other.http.post("/v1/models", content=b"bytes").status_code == 201
        assert one.http.get("/v1/models").status_code == 200
        assert one.http.post("/v1/keys", json={}).status_code == 201


def test_a_place_that_comes_free_goes_to_who_waits(server: Server) -> None:
    with server.caller() as caller, ThreadPoolExecutor(1) as pool:
        with held_uploads(server, caller, 3):
            waits = pool.submit(caller.http.post, "/v1/models", content=b"waits")
            time.sleep(0.1)
        assert waits.result(10).status_code == 201


def test_announced_bytes_are_bounded_before_they_come(server: Server) -> None:
    with server.caller() as caller, server.client() as large:
        large.send(
            server.head("POST /v1/datasets", "Content-Length: 900000000").replace(
                server.secret.encode(), caller.secret.encode()
            )
        )
        gate = server.service.app.state.service.gates.uploads
        deadline = time.monotonic() + 10
        while not gate.inside[caller.project_id]:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        refused = caller.http.post("/v1/datasets", content=b"a few")
        assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
    while gate.inside[caller.project_id]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert caller.project_id not in gate.sizes


def test_bodies_that_are_held_are_bounded(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    budget = server.service.app.state.service.gates.bodies
    monkeypatch.setattr(budget, "size", 400_000)
    with server.caller() as caller, ExitStack() as stack:
        begun = server.head("POST /v1/jobs", "Content-Length: 100000")
        begun = begun.replace(server.secret.encode(), caller.secret.encode())
        for _ in range(2):
            client = stack.enter_context(server.client())
            client.send(begun + b" " * 99_000)
        deadline = time.monotonic() + 10
        while budget.held[caller.project_id] < 190_000:
            assert time.monotonic() < deadline, budget.held
            time.sleep(0.01)
        refused = caller.http.post("/v1/plans", content=b" " * 90_000)
        assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
        assert server.exchange(server.head("POST /v1/keys", "Content-Length: 2") + b"{}", 5)
    while budget.held:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/jobs"),
        ("POST", "/v1/plans"),
        ("GET", "/v1/jobs?limit=200"),
        ("GET", "/v1/models"),
        ("GET", "/metrics"),
        ("GET", "/readyz"),
        ("GET", "/v1/criteria"),
    ],
)
def test_a_burst_of_any_kind_is_answered_and_keeps_nobody_waiting(
    server: Server, method: str, path: str
) -> None:
    count = 300 if LONG else 40
    with server.caller() as caller:
        asked = caller.ready() if method == "POST" else None
        with watched(server.service.url) as took, ThreadPoolExecutor(20) as pool:

            def ask(_number: int) -> httpx.Response:
                return caller.http.request(method, path, json=asked)

            answers = list(pool.map(ask, range(count)))
    statuses = Counter(answer.status_code for answer in answers)
    assert set(statuses) <= {200, 202, 503}, statuses
    assert all(a.headers["retry-after"] for a in answers if a.status_code == 503)
    assert statuses[503] < count
    # The clients are threads of this very process, so this is far from what a server alone takes.
    assert sorted(took)[len(took) // 2] < 1.0


def test_jobs_submitted_at_once_all_come_to_be(server: Server) -> None:
    with server.caller() as caller, ThreadPoolExecutor(16) as pool:
        asked = caller.ready()
        answers = list(pool.map(lambda _n: caller.http.post("/v1/jobs", json=asked), range(40)))
        assert {answer.status_code for answer in answers} == {202}
        listed = caller.http.get("/v1/jobs", params={"limit": 100}).json()["data"]
    assert {job["id"] for job in listed} == {answer.json()["id"] for answer in answers}


def test_places_are_given_back_whatever_becomes_of_the_request(server: Server) -> None:
    gates = server.service.app.state.service.gates
    with server.caller() as caller:
        Caller.ready(caller)
        caller.http.post("/v1/jobs", content=b"{")
        caller.http.get("/v1/jobs?limit=x")
        caller.http.post("/v1/models", content=b"")
        caller.http.request("BREW", "/v1/jobs")
    deadline = time.monotonic() + 10
    while any(gate.inside for gate in (gates.uploads, gates.writes, gates.reads)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
