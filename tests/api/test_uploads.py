"""Uploads: raw and multipart, streamed, hashed, bounded; a bad one leaves nothing."""

import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from store.queries import keys
from tests.api.conftest import MODEL_LIMIT, Caller, Service, assert_problem

BYTES = b"\x08\x07some bytes that intake will look at"


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def unfinished(service: Service) -> list[str]:
    return os.listdir(service.settings.blob_dir / "unfinished")


def assert_nothing_left(caller: Caller, content: bytes | None = None) -> None:
    assert unfinished(caller.service) == []
    assert caller.http.get("/v1/models").json()["data"] == []
    if content is not None:
        assert not caller.service.blobs.exists(digest(content))


def multipart(*parts: tuple[str, bytes], boundary: str = "cut", end: bool = True) -> bytes:
    body = b"".join(
        f"--{boundary}\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode()
        + content
        + b"\r\n"
        for head, content in parts
    )
    return body + (f"--{boundary}--\r\n".encode() if end else b"")


def post_form(caller: Caller, body: bytes, kind: str = "models") -> httpx.Response:
    return caller.http.post(
        f"/v1/{kind}", content=body, headers={"content-type": "multipart/form-data; boundary=cut"}
    )


@pytest.mark.parametrize(("kind", "prefix"), [("models", "mdl_"), ("datasets", "ds_")])
def test_a_raw_body_becomes_a_resource_that_is_checked(
    caller: Caller, kind: str, prefix: str
) -> None:
    response = caller.http.post(f"/v1/{kind}", content=BYTES, params={"name": "lenet.onnx"})
    assert response.status_code == 201
    made = response.json()
    assert made["id"].startswith(prefix)
    assert made["object"] == kind.removesuffix("s")
    assert (made["name"], made["state"]) == ("lenet.onnx", "checking")
    assert (made["bytes"], made["sha256"]) == (len(BYTES), digest(BYTES))
    assert response.headers["location"] == f"/v1/{kind}/{made['id']}"
    assert caller.http.get(response.headers["location"]).json() == made
    assert caller.service.blobs.path(made["sha256"]).read_bytes() == BYTES


def test_any_content_type_but_multipart_is_the_file_itself(caller: Caller) -> None:
    for kind in ("application/json", "application/x-www-form-urlencoded", "text/plain; a=b"):
        content = BYTES + kind.encode()
        response = caller.http.post("/v1/models", content=content, headers={"content-type": kind})
        assert response.json()["sha256"] == digest(content)


def test_the_same_bytes_twice_are_one_model_within_a_project(
    caller: Caller, stranger: Caller
) -> None:
    first = caller.http.post("/v1/models", content=BYTES)
    again = caller.http.post("/v1/models", content=BYTES)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["id"] == again.json()["id"]
    assert again.headers["location"] == first.headers["location"]
    theirs = stranger.http.post("/v1/models", content=BYTES)
    assert theirs.status_code == 201
    assert theirs.json()["id"] != first.json()["id"]


@pytest.mark.parametrize("kind", ["models", "datasets"])
def test_known_bytes_under_another_name_keep_that_name(caller: Caller, kind: str) -> None:
    def send(name: str) -> httpx.Response:
        return caller.http.post(f"/v1/{kind}", content=BYTES, params={"name": name})

    first, other, again = send("a.onnx"), send("b.onnx"), send("b.onnx")
    assert [r.status_code for r in (first, other, again)] == [201, 201, 200]
    assert (first.json()["name"], other.json()["name"]) == ("a.onnx", "b.onnx")
    assert first.json()["id"] != other.json()["id"] == again.json()["id"]
    assert first.json()["sha256"] == other.json()["sha256"]


def test_a_multipart_body_is_the_same_upload(caller: Caller) -> None:
    content = os.urandom(300_000) + b"\r\n--cut" * 10 + b"\r\n--cu"
    response = caller.http.post("/v1/models", files={"file": ("net.onnx", content)})
    assert response.status_code == 201
    assert (response.json()["name"], response.json()["sha256"]) == ("net.onnx", digest(content))


@pytest.mark.parametrize("size", [1, 7, 64])
def test_a_multipart_body_may_be_cut_anywhere(caller: Caller, size: int) -> None:
    content = b"a\r\n--cu\r\n-b\r\r\n--c" + bytes([size])
    body = multipart(('name="name"', b"my net.onnx"), ('name="file"; filename="f"', content))

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(body), size):
            yield body[start : start + size]

    response = caller.http.post(
        "/v1/models",
        content=pieces(),
        headers={"content-type": "multipart/form-data; boundary=cut"},
    )
    assert response.status_code == 201, response.text
    assert response.json()["sha256"] == digest(content)
    assert response.json()["name"] == "my net.onnx"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"this is no form", "multipart_invalid"),
        (multipart(('name="other"', b"x"), ('name="file"', b"y")), "multipart_invalid"),
        (multipart(('name="name"', b"x")), "multipart_invalid"),
        (multipart(('name="name"', b"x" * 2000)), "multipart_invalid"),
        (multipart(('name="file"', b"x"), ('name="file"', b"y")), "multipart_invalid"),
        (multipart((f'name="file"; x="{"y" * 9000}"', b"x")), "multipart_invalid"),
        (multipart(*[('name="samples"', b"x=1")] * 500), "multipart_invalid"),
        (multipart(('name="file"', b"x"), end=False), "upload_incomplete"),
        (multipart(('name="file"', b"")), "upload_empty"),
        (b"", "upload_incomplete"),
    ],
)
def test_a_bad_form_is_refused_and_leaves_nothing(caller: Caller, body: bytes, code: str) -> None:
    assert_problem(post_form(caller, body), 400, code)
    assert_nothing_left(caller)


def test_a_form_without_boundary_is_refused(caller: Caller) -> None:
    for kind in ("multipart/form-data", "multipart/form-data; boundary=b" + "; a=b" * 300):
        headers = {"content-type": kind}
        response = caller.http.post("/v1/models", content=b"x", headers=headers)
        assert_problem(response, 400, "multipart_invalid")
    headers = {"content-type": "multipart/form-data"}
    response = caller.http.post("/v1/models", content=b"x", headers=headers)
    assert_problem(response, 400, "multipart_invalid")


def test_an_empty_body_is_refused(caller: Caller) -> None:
    assert_problem(caller.http.post("/v1/models", content=b""), 400, "upload_empty")
    assert_nothing_left(caller)


def test_an_announced_body_over_the_limit_is_refused_unread(caller: Caller) -> None:
    address = urlsplit(caller.service.url)
    with socket.create_connection((address.hostname, address.port), timeout=5) as raw:
        raw.sendall(
            f"POST /v1/models HTTP/1.1\r\nHost: t\r\nContent-Length: {MODEL_LIMIT + 1}\r\n"
            f"Authorization: Bearer {caller.secret}\r\n\r\n".encode()
        )
        assert raw.recv(100).startswith(b"HTTP/1.1 413 ")
    assert_nothing_left(caller)


@pytest.mark.parametrize("form", [False, True])
def test_a_streamed_body_over_the_limit_is_refused(caller: Caller, form: bool) -> None:
    def pieces() -> Iterator[bytes]:
        if form:
            yield multipart(('name="file"', b""), end=False)[:-2]
        for _ in range(MODEL_LIMIT // 65536 + 2):
            yield bytes(65536)

    headers = {"content-type": "multipart/form-data; boundary=cut"} if form else {}
    response = caller.http.post("/v1/models", content=pieces(), headers=headers)
    problem = assert_problem(response, 413, "too_large")
    assert problem["details"]["limit"] == MODEL_LIMIT
    assert_nothing_left(caller)


def test_a_body_of_exactly_the_limit_is_taken(caller: Caller) -> None:
    content = os.urandom(MODEL_LIMIT)
    assert caller.http.post("/v1/models", content=content).status_code == 201


def test_an_announced_digest_is_checked(caller: Caller) -> None:
    def send(announced: str) -> httpx.Response:
        headers = {"x-content-sha256": announced}
        return caller.http.post("/v1/models", content=BYTES + b"digest", headers=headers)

    assert_problem(send("0" * 64), 400, "digest_mismatch")
    assert_nothing_left(caller, BYTES + b"digest")
    problem = assert_problem(send("abc"), 422, "invalid_request")
    assert problem["where"] == "X-Content-SHA256"
    assert send(digest(BYTES + b"digest").upper()).status_code == 201


def test_a_client_that_goes_away_leaves_nothing(caller: Caller) -> None:
    address = urlsplit(caller.service.url)
    with socket.create_connection((address.hostname, address.port), timeout=5) as raw:
        raw.sendall(
            b"POST /v1/models HTTP/1.1\r\nHost: t\r\nContent-Length: 1000000\r\n"
            b"Authorization: Bearer " + caller.secret.encode() + b"\r\n\r\n" + b"x" * 1000
        )
        wait_until(lambda: len(unfinished(caller.service)) == 1)
    wait_until(lambda: unfinished(caller.service) == [])
    assert_nothing_left(caller)


def test_a_client_that_falls_silent_is_refused(caller: Caller) -> None:
    address = urlsplit(caller.service.url)
    with socket.create_connection((address.hostname, address.port), timeout=5) as raw:
        raw.sendall(
            b"POST /v1/models HTTP/1.1\r\nHost: t\r\nContent-Length: 1000000\r\n"
            b"Authorization: Bearer " + caller.secret.encode() + b"\r\n\r\n" + b"x" * 1000
        )
        answer = b""
        while b"upload_incomplete" not in answer and (more := raw.recv(4096)):
            answer += more  # head and body may arrive apart
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"upload_incomplete" in answer
    assert_nothing_left(caller)


def wait_until(true: Callable[[], bool], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.005)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\nets\\a.onnx", "a.onnx"),
        ("..", "model"),
        ("a\x00b\nc.onnx", "abc.onnx"),
        ("näh 猫.onnx", "näh 猫.onnx"),
        ("\u202egnp.onnx", "gnp.onnx"),
        ("x" * 900, "x" * 200),
    ],
)
def test_names_lose_folders_and_control_characters(caller: Caller, given: str, shown: str) -> None:
    response = caller.http.post("/v1/models", content=BYTES, params={"name": given})
    assert response.json()["name"] == shown


def test_a_name_that_is_too_long_is_refused_unread(caller: Caller) -> None:
    response = caller.http.post("/v1/models", content=BYTES, params={"name": "x" * 1001})
    assert assert_problem(response, 422, "invalid_request")["where"] == "name"


def test_a_rejected_upload_says_why_and_may_be_sent_again(caller: Caller) -> None:
    rejected = caller.upload("models", BYTES, facts=None)
    found = caller.http.get(f"/v1/models/{rejected}").json()
    assert found["state"] == "rejected"
    assert found["error"]["code"] == "model_unreadable"
    assert found["error"]["hint"]
    assert caller.http.post("/v1/models", content=BYTES).status_code == 201


@pytest.fixture
def process(tmp_path: Path, service: Service) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A server in a process of its own, so that its memory can be measured; on the same store."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = os.environ | {
        "SECATEUR_DATABASE_URL": service.settings.database_url,
        "SECATEUR_DATA_DIR": str(tmp_path),
        "SECATEUR_LOG_LEVEL": "warning",
        "SECATEUR_BLOB_DIR": str(tmp_path / "blobs"),
    }
    command = [sys.executable, "-m", "api"]
    server = subprocess.Popen([*command, "--port", str(port)], env=env)
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
        yield server, url
    finally:
        server.terminate()
        server.wait(10)


def peak_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_memory_stays_flat_whatever_the_size(
    service: Service, process: tuple[subprocess.Popen[bytes], str]
) -> None:
    server, url = process
    with service.database.write() as session:
        project = keys.create_project(session, "large")
        _, secret = keys.create_key(session, project.id, "large")
    piece = os.urandom(1 << 20)
    head = multipart(('name="file"; filename="large.npz"', b""), end=False)[:-2]

    def body(count: int, form: bool) -> Iterator[bytes]:
        if form:
            yield head
        yield from (piece for _ in range(count))
        if form:
            yield b"\r\n--cut--\r\n"

    headers = {"authorization": f"Bearer {secret}"}
    form_headers = headers | {"content-type": "multipart/form-data; boundary=cut"}
    with httpx.Client(base_url=url, timeout=60) as http:
        for count in (8, 200):
            raw = http.post("/v1/datasets", content=body(count, False), headers=headers)
            assert (raw.status_code, raw.json()["bytes"]) == (201, count << 20)
            form = http.post("/v1/datasets", content=body(count + 1, True), headers=form_headers)
            assert (form.status_code, form.json()["bytes"]) == (201, count + 1 << 20)
            if count == 8:
                before = peak_bytes(server.pid)
    assert peak_bytes(server.pid) - before < 16 << 20


def test_a_model_of_several_files_is_one_model_with_a_canonical_digest(caller: Caller) -> None:
    files = {"config.json": b"{}", "model.safetensors": b"weights" * 1000, "empty.txt": b""}
    body = multipart(*((f'name="file"; filename="{n}"', c) for n, c in files.items()))
    made = post_form(caller, body)
    assert made.status_code == 201, made.text
    listed = [
        {"bytes": len(files[n]), "path": n, "sha256": hashlib.sha256(files[n]).hexdigest()}
        for n in sorted(files)
    ]
    model = made.json()
    assert model["files"] == [{"path": f["path"], **f} for f in listed]
    canonical = json.dumps(listed, separators=(",", ":")).encode()
    assert model["sha256"] == hashlib.sha256(canonical).hexdigest()
    assert model["bytes"] == sum(map(len, files.values()))
    turned = dict(reversed(files.items()))
    body = multipart(*((f'name="file"; filename="{n}"', c) for n, c in turned.items()))
    again = post_form(caller, body)
    assert (again.status_code, again.json()["id"]) == (200, model["id"])


@pytest.mark.parametrize(
    "names",
    [
        ["a.json", "a.json"],
        ["a.json", "../b"],
        ["a.json", "x/y"],
        ["a", ".hidden"],
        ["a.json", "report.json"],
        ["a.json", "\U0001f600" * 70],
    ],
)
def test_files_of_one_upload_have_plain_names_of_their_own(
    caller: Caller, names: list[str]
) -> None:
    body = multipart(*((f'name="file"; filename="{n}"', b"x") for n in names))
    answer = post_form(caller, body)
    assert (answer.status_code, answer.json()["code"]) == (400, "multipart_invalid")
    assert_nothing_left(caller)


def test_a_dataset_is_one_file(caller: Caller) -> None:
    body = multipart(('name="file"; filename="a"', b"x"), ('name="file"; filename="b"', b"y"))
    answer = post_form(caller, body, "datasets")
    assert (answer.status_code, answer.json()["code"]) == (400, "multipart_invalid")


@pytest.mark.parametrize(
    ("kind", "content", "looks"),
    [
        ("models", b"\x80\x04\x95rest of a pickle", "a Python pickle"),
        ("models", b"\x89HDF\r\n\x1a\nrest", "an HDF5 file"),
        ("models", b"GGUF\x03\x00\x00\x00", "a GGUF file"),
        ("models", b"PAR1rest", "a Parquet file"),
        ("datasets", b"\x1f\x8b\x08\x00rest", "a gzip file"),
        ("datasets", b"BZh91AY", "a bzip2 file"),
    ],
)
def test_what_no_reader_takes_is_refused_at_once_with_what_is_accepted(
    caller: Caller, kind: str, content: bytes, looks: str
) -> None:
    answer = caller.http.post(f"/v1/{kind}", content=content)
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (415, "unsupported_format")
    assert looks in problem["detail"]
    assert len(problem["details"]["accepted"]) == (4 if kind == "models" else 5)
    assert "docs/" in problem["hint"]
    assert_nothing_left(caller, content)
