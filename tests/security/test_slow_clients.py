"""Clients that are slow, in any phase, are cut off; those beside them notice nothing."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import pytest

from pruning.events import PhaseEvent, ProgressEvent
from tests.api.conftest import Caller
from tests.security.raw_http import Answer, Client, Server, serve

HEAD, IDLE, SLOW = 0.6, 0.6, 0.8
LIMITS = {
    "head_seconds": HEAD,
    "keep_alive_seconds": IDLE,
    "slow_seconds": SLOW,
    "slow_bytes_per_second": 200,
    "body_seconds": 1.2,
    "upload_idle_seconds": 30.0,
}
LATEST = 8.0
"""Seconds in which the slowest of them must be cut: a limit, three seconds for what is still on its
way, and a busy machine."""

MULTIPART = "Content-Type: multipart/form-data; boundary=b"
PART = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x.onnx"\r\n\r\n'
TINY = 4096


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(tmp_path_factory.mktemp("slow"), **LIMITS) as running:
        yield running


@pytest.fixture(scope="module")
def talkative_job(server: Server) -> str:
    """A running job that has said far more than sockets hold."""
    with server.service.client(server.secret) as http:
        caller = Caller(server.service, server.project_id, server.secret, http)
        job_id: str = caller.submit()["id"]
        claim = server.service.claim_job(job_id)
        for _ in range(20):
            told = [
                ProgressEvent(phase="pruning", done=n, total=100, message="x" * 500)
                for n in range(200)
            ]
            server.service.report(claim, *told)
    return job_id


Slow = Callable[[Server, str, Client], None]


def begins_nothing(server: Server, job: str, client: Client) -> None:
    pass


def sends_a_head(server: Server, job: str, client: Client) -> None:
    drip(client, server.head()[:-4])


def sends_empty_lines(server: Server, job: str, client: Client) -> None:
    drip(client, b"\r\n" * 500)


def sends_json(server: Server, job: str, client: Client) -> None:
    client.send(server.head("POST /v1/plans", "Content-Length: 1000"))
    drip(client, b" " * 1000)


def sends_json_in_chunks(server: Server, job: str, client: Client) -> None:
    client.send(server.head("POST /v1/plans", "Transfer-Encoding: chunked"))
    drip(client, b"1\r\n \r\n" * 1000)


def sends_an_upload(server: Server, job: str, client: Client) -> None:
    client.send(server.head("POST /v1/models", "Content-Length: 100000"))
    drip(client, b"x" * 1000)


def sends_nothing_of_an_upload(server: Server, job: str, client: Client) -> None:
    client.send(server.head("POST /v1/models", "Content-Length: 100000"))


def sends_an_extension(server: Server, job: str, client: Client) -> None:
    client.send(server.head("POST /v1/models", "Transfer-Encoding: chunked") + b"5;")
    drip(client, b"x" * 1000)


def sends_a_form(server: Server, job: str, client: Client) -> None:
    client.send(server.head("POST /v1/models", MULTIPART, "Content-Length: 100000") + PART)
    drip(client, b"x" * 1000)


def sends_a_form_s_header(server: Server, job: str, client: Client) -> None:
    client.send(server.head("POST /v1/models", MULTIPART, "Content-Length: 100000"))
    drip(client, b"--b\r\nX: " + b"y" * 1000)


def sends_a_body_without_a_key(server: Server, job: str, client: Client) -> None:
    client.send(server.head("POST /v1/models", "Content-Length: 100000", key=False))
    drip(client, b"x" * 1000)


def sends_a_body_to_get(server: Server, job: str, client: Client) -> None:
    client.send(server.head("GET /healthz", "Content-Length: 100000"))
    drip(client, b"x" * 1000)


def keeps_alive(server: Server, job: str, client: Client) -> None:
    client.send(server.head("GET /healthz"))


def keeps_alive_with_empty_lines(server: Server, job: str, client: Client) -> None:
    client.send(server.head("GET /healthz"))
    drip(client, b"\r\n" * 500)


def reads_nothing(server: Server, job: str, client: Client) -> None:
    client.send(server.head(f"GET /v1/jobs/{job}/events?limit=1000") * 8)


def reads_a_little(server: Server, job: str, client: Client) -> None:
    client.send(server.head(f"GET /v1/jobs/{job}/events?limit=1000") * 8)
    sip(client)


def streams_and_reads_nothing(server: Server, job: str, client: Client) -> None:
    client.send(server.head(f"GET /v1/jobs/{job}/events", "Accept: text/event-stream"))


def streams_and_reads_a_little(server: Server, job: str, client: Client) -> None:
    client.send(server.head(f"GET /v1/jobs/{job}/events", "Accept: text/event-stream"))
    sip(client)


SENDERS: list[tuple[Slow, list[int]]] = [
    (begins_nothing, []),
    (sends_a_head, [408]),
    (sends_empty_lines, [408]),
    (sends_json, [408]),
    (sends_json_in_chunks, [408]),
    (sends_an_upload, [408]),
    (sends_nothing_of_an_upload, [408]),
    (sends_an_extension, [408]),
    (sends_a_form, [408]),
    (sends_a_form_s_header, [408]),
    (sends_a_body_without_a_key, [401]),
    (sends_a_body_to_get, [200]),
    (keeps_alive, [200]),
    (keeps_alive_with_empty_lines, [200, 408]),
]
READERS: list[Slow] = [
    reads_nothing,
    reads_a_little,
    streams_and_reads_nothing,
    streams_and_reads_a_little,
]


def drip(client: Client, data: bytes) -> None:
    """Sends a byte every 20 ms: 50 a second, where 200 are the least."""

    def run() -> None:
        for byte in data:
            if not client.send(bytes([byte])):
                return
            time.sleep(0.02)

    threading.Thread(target=run, daemon=True).start()


def sip(client: Client) -> None:
    """Reads a byte every 20 ms."""

    def run() -> None:
        try:
            while client.socket.recv(1):
                time.sleep(0.02)
        except OSError:
            pass

    threading.Thread(target=run, daemon=True).start()


def connections(server: Server) -> int:
    """How many the server has, by its own count."""
    return len(server.service.app.state.connections)


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_who_sends_slowly_is_told_and_cut_in_every_phase(
    server: Server, talkative_job: str
) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(server.client()) for _ in SENDERS]
        for (begin, _), client in zip(SENDERS, clients, strict=True):
            begin(server, talkative_job, client)
        with ThreadPoolExecutor(len(clients)) as pool:
            answers: list[Answer] = list(pool.map(lambda c: c.answer(silent=LATEST), clients))
        for (begin, expected), answer in zip(SENDERS, answers, strict=True):
            assert answer.closed, begin.__name__
            assert answer.statuses == expected, (begin.__name__, answer.data)
            if expected[-1:] == [408]:
                assert b"request_timeout" in answer.data, begin.__name__
    assert wait_until(lambda: connections(server) == 0, LATEST)
    assert not list((server.service.settings.blob_dir / "tmp").glob("*"))


def test_who_reads_slowly_is_cut(server: Server, talkative_job: str) -> None:
    with ExitStack() as stack:
        for begin in READERS:
            client = stack.enter_context(server.client(receive_buffer=TINY))
            begin(server, talkative_job, client)
        assert wait_until(lambda: connections(server) == len(READERS), LATEST)
        assert wait_until(lambda: connections(server) == 0, LATEST)


def test_who_moves_fast_enough_is_not_cut(server: Server, talkative_job: str) -> None:
    """However long it takes: the limits are of rates and of silence, not of an upload's length."""

    def body() -> Iterator[bytes]:
        for _ in range(24):
            yield b"x" * 100
            time.sleep(0.1)

    with server.caller() as caller:
        quiet = caller.submit()["id"]
        headers = {"accept": "text/event-stream"}
        with caller.http.stream("GET", f"/v1/jobs/{quiet}/events", headers=headers) as events:
            lines = events.iter_lines()
            uploaded = httpx.post(
                f"{server.service.url}/v1/datasets?name=slow.npz",
                content=body(),
                headers={"authorization": f"Bearer {caller.secret}"},
            )
            assert uploaded.status_code == 201
            claim = server.service.claim_job(quiet)
            server.service.report(claim, PhaseEvent(phase="verifying"))
            assert any("verifying" in line for line in lines)


def test_nothing_is_made_for_who_has_not_read_what_came_before(
    server: Server, talkative_job: str
) -> None:
    """32 requests of a few bytes would else hold 32 large responses."""
    asked = server.head(f"GET /v1/jobs/{talkative_job}/events?limit=1000")
    count = (
        'secateur_http_requests_total{method="GET",route="/v1/jobs/{job_id}/events",status="200"}'
    )

    def answered() -> int:
        with server.service.client(None) as http:
            text = http.get("/metrics").text
        return int(float(next((x for x in text.splitlines() if count in x), "x 0").split()[-1]))

    before = answered()
    with server.client(receive_buffer=TINY) as client:
        client.send(asked * 20)
        time.sleep(0.5)
        assert answered() - before <= 4
    with server.client() as client:
        client.send(asked * 20)
        found = client.answer(silent=1.5)
    assert found.statuses == [200] * 20
