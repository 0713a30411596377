"""A service that takes no more at the moment says when to come back, and the client does."""

import hashlib
import time
from pathlib import Path

import pytest

from secateur import Client, SecateurError, _calls
from secateur._flow import ATTEMPTS
from secateur.resources import Artifact
from tests.secateur.conftest import Script, reply
from tests.secateur.test_client import DONE, NOW, PHASE, QUEUED, SSE, _frames, problem

UPLOADED = {"id": "mdl_1", "name": "n", "state": "checking", "bytes": 6, "sha256": "0"}
BUSY = reply(503, problem("overloaded"), Retry_After="0.01")


@pytest.fixture
def client(script: Script) -> Client:
    return Client(script.url, "sct_test")


def test_an_upload_waits_its_turn_beyond_the_usual_attempts(
    script: Script, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secateur._flow.backoff", lambda _attempt: 0.001)
    script.answers = [*[BUSY] * (ATTEMPTS + 4), reply(201, UPLOADED | {"created_at": NOW})]
    assert client.upload_model(b"abcdef", "n.onnx").id == "mdl_1"
    assert [body for *_, body in script.requests] == [b"abcdef"] * (ATTEMPTS + 5)


def test_an_upload_does_not_wait_for_ever(
    script: Script, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_calls, "UPLOAD_PATIENCE", 0.05)
    monkeypatch.setattr("secateur._flow.backoff", lambda _attempt: 0.001)
    script.answers = [BUSY]
    with pytest.raises(SecateurError) as caught:
        client.upload_model(b"abcdef", "n.onnx")
    assert caught.value.code == "overloaded"
    assert ATTEMPTS <= len(script.requests) < 20


def test_it_comes_back_no_sooner_than_it_was_told(script: Script, client: Client) -> None:
    script.answers = [
        reply(503, problem("overloaded"), Retry_After="1"),
        reply(201, UPLOADED | {"created_at": NOW}),
    ]
    begin = time.monotonic()
    client.upload_model(b"abcdef", "n.onnx")
    assert time.monotonic() - begin >= 1


def test_a_stream_that_there_was_no_room_for_is_asked_for_again(
    script: Script, client: Client
) -> None:
    stream = reply(200, _frames(QUEUED, PHASE, DONE), Content_Type=SSE)
    script.answers = [BUSY, reply(503, problem("database_busy")), stream]
    assert [event.seq for event in client.events("job_1")] == [1, 2, 4]


def test_a_download_that_there_was_no_room_for_is_asked_for_again(
    script: Script, client: Client, tmp_path: Path
) -> None:
    content = b"pruned"
    artifact = Artifact(
        name="net.onnx", bytes=len(content), sha256=hashlib.sha256(content).hexdigest()
    )
    script.answers = [BUSY, BUSY, reply(200, content)]
    assert client.fetch("job_1", artifact, tmp_path).read_bytes() == content
