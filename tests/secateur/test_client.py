import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from secateur import AsyncClient, Client, SecateurError
from secateur._flow import ATTEMPTS
from secateur.resources import Artifact, OtherEvent
from tests.secateur.conftest import Script, cut, hang_up, reply

NOW = "2026-03-01T12:00:00Z"


def job(**more: Any) -> dict[str, Any]:
    return {"id": "job_1", "state": "queued", "model": "mdl_1", "created_at": NOW, **more}


def problem(code: str, **more: Any) -> dict[str, Any]:
    return {"code": code, "detail": "what is wrong", "title": "t", "status": 0, **more}


@pytest.fixture
def client(script: Script) -> Client:
    return Client(script.url, "sct_test")


def test_a_submission_is_repeated_with_one_and_the_same_idempotency_key(
    script: Script, client: Client
) -> None:
    script.answers = [hang_up, reply(503, problem("unavailable")), reply(202, job())]
    assert client.submit("mdl_1", "ds_1").id == "job_1"
    keys = {headers["Idempotency-Key"] for _, _, headers, _ in script.requests}
    assert (len(script.requests), len(keys)) == (3, 1)
    assert json.loads(script.requests[0][3])["data"] == {"calibration": "ds_1"}


def test_an_earlier_checkpoint_goes_along_and_is_left_out_where_there_is_none(
    script: Script, client: Client
) -> None:
    script.answers = [reply(202, job()), reply(200, {}), reply(202, job())]
    client.submit("mdl_1", "ds_1", rewind_to="mdl_0")
    client.plan("mdl_1", "ds_1", rewind_to="mdl_0")
    client.submit("mdl_1", "ds_1")
    bodies = [json.loads(body) for *_, body in script.requests]
    assert [body.get("rewind_to", "absent") for body in bodies] == ["mdl_0", "mdl_0", "absent"]


def test_what_is_not_safe_to_repeat_is_sent_once(script: Script, client: Client) -> None:
    script.answers = [hang_up]
    with pytest.raises(SecateurError) as caught:
        client.retry("job_1")
    assert caught.value.code == "connection_failed"
    assert len(script.requests) == 1


def test_an_upload_is_sent_again_from_its_start(script: Script, client: Client) -> None:
    model = {"id": "mdl_1", "name": "n", "state": "checking", "bytes": 6, "sha256": "0"}
    script.answers = [reply(503), reply(201, model | {"created_at": NOW, "new_field": 1})]
    progress: list[tuple[int, int | None]] = []
    client.upload_model(b"abcdef", "n.onnx", progress=lambda *seen: progress.append(seen))
    assert [body for *_, body in script.requests] == [b"abcdef", b"abcdef"]
    headers = script.requests[0][2]
    assert headers["X-Content-SHA256"] == hashlib.sha256(b"abcdef").hexdigest()
    assert headers["Authorization"] == "Bearer sct_test"
    assert progress[-1] == (6, 6)


def test_a_problem_becomes_an_error_with_all_its_parts(script: Script, client: Client) -> None:
    errors = [{"where": "spec.a", "message": "m"}]
    script.answers = [reply(422, problem("spec_invalid", where="spec.a", hint="h", errors=errors))]
    with pytest.raises(SecateurError) as caught:
        client.submit("mdl_1", "ds_1")
    error = caught.value
    assert (error.code, error.message, error.where, error.hint) == (
        *("spec_invalid", "what is wrong", "spec.a", "h"),
    )
    assert error.details["errors"] == errors


def test_a_code_from_the_future_is_kept_in_the_details(script: Script, client: Client) -> None:
    script.answers = [reply(409, problem("quantum_state"))]
    with pytest.raises(SecateurError) as caught:
        client.job("job_1")
    assert caught.value.code == "conflict"
    assert caught.value.details["original_code"] == "quantum_state"


@pytest.mark.parametrize("status", [404, 500])
def test_an_error_page_of_a_proxy_is_an_error_too(
    script: Script, client: Client, status: int
) -> None:
    script.answers = [reply(status, b"<html>no</html>")]
    with pytest.raises(SecateurError) as caught:
        client.job("job_1")
    assert caught.value.details["http_status"] == status


def test_something_else_at_the_url_is_said_to_be_that(script: Script, client: Client) -> None:
    script.answers = [reply(200, b"<html>hello</html>")]
    with pytest.raises(SecateurError, match="SECATEUR_URL"):
        client.job("job_1")


def _frames(*events: dict[str, Any]) -> bytes:
    return b"".join(
        f"id: {e['seq']}\nevent: {e['type']}\ndata: {json.dumps(e)}\n\n".encode() for e in events
    )


QUEUED = {"seq": 1, "at": NOW, "type": "state", "state": "queued"}
PHASE = {"seq": 2, "at": NOW, "type": "phase", "phase": "loading"}
NOVEL = {"seq": 3, "at": NOW, "type": "telepathy", "strength": 9}
DONE = {"seq": 4, "at": NOW, "type": "state", "state": "succeeded"}
SSE = "text/event-stream"


def test_a_broken_event_stream_is_taken_up_after_the_last_event(
    script: Script, client: Client
) -> None:
    first = _frames(QUEUED, PHASE)
    script.answers = [
        cut(200, first + b"id: 3\nda", 9999, Content_Type=SSE),
        # What was seen already is not told twice, whatever the server repeats.
        reply(200, _frames(PHASE, NOVEL, DONE), Content_Type=SSE),
    ]
    events = list(client.events("job_1"))
    assert [e.seq for e in events] == [1, 2, 3, 4]
    assert isinstance(events[2].event, OtherEvent)
    assert events[2].event.model_extra == {"strength": 9}
    assert script.requests[1][2]["Last-Event-ID"] == "2"


def test_where_streams_do_not_get_through_the_list_is_polled(
    script: Script, client: Client
) -> None:
    script.answers = [
        reply(
            200,
            {"data": [QUEUED], "next_after": 1, "ended": False},
            Content_Type="application/json",
        ),
        reply(200, {"data": [QUEUED, PHASE], "next_after": 2, "ended": False}),
        reply(200, {"data": [NOVEL, DONE], "next_after": 4, "ended": True}),
    ]
    assert [e.seq for e in client.events("job_1")] == [1, 2, 3, 4]
    assert "after=2" in script.requests[2][1]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_download_that_breaks_off_is_resumed_by_range(
    script: Script, tmp_path: Path, asynchronous: bool
) -> None:
    content = bytes(range(256)) * 40
    artifact = Artifact(
        name="net.onnx", bytes=len(content), sha256=hashlib.sha256(content).hexdigest()
    )
    script.answers = [
        cut(200, content[:5000], len(content)),
        reply(206, content[5000:]),
    ]
    if asynchronous:

        async def fetch() -> Path:
            async with AsyncClient(script.url, "k") as client:
                return await client.fetch("job_1", artifact, tmp_path)

        path = asyncio.run(fetch())
    else:
        with Client(script.url, "k") as client:
            path = client.fetch("job_1", artifact, tmp_path)
    assert path.read_bytes() == content
    headers = script.requests[1][2]
    assert (headers["Range"], headers["If-Range"]) == ("bytes=5000-", f'"{artifact.sha256}"')
    assert [p.name for p in tmp_path.iterdir()] == ["net.onnx"]


def test_bytes_other_than_announced_are_never_put_in_place(
    script: Script, client: Client, tmp_path: Path
) -> None:
    artifact = Artifact(name="net.onnx", bytes=3, sha256="0" * 64)
    script.answers = [reply(200, b"abc")]
    with pytest.raises(SecateurError) as caught:
        client.fetch("job_1", artifact, tmp_path)
    assert caught.value.code == "digest_mismatch"
    assert list(tmp_path.iterdir()) == []


def test_a_report_with_other_bytes_than_announced_is_refused(
    script: Script, client: Client
) -> None:
    sound, digest = b'{"loss": 1}', hashlib.sha256(b'{"loss": 1}').hexdigest()
    for content in (sound, sound.replace(b"1", b"2")):
        script.answers.append(reply(200, content, **{"X-Content-SHA256": digest}))
    assert client.report("job_1") == {"loss": 1}
    with pytest.raises(SecateurError) as refused:
        client.report("job_1")
    assert refused.value.code == "digest_mismatch"


@pytest.mark.parametrize("name", ["../evil", "a/b", "..", "", "c\\d"])
def test_a_file_name_from_the_service_can_not_leave_the_folder(
    client: Client, tmp_path: Path, name: str
) -> None:
    artifact = Artifact(name=name, bytes=1, sha256="0" * 64)
    with pytest.raises(SecateurError):
        client.fetch("job_1", artifact, tmp_path / "in")
    assert list(tmp_path.iterdir()) == []


def test_waiting_for_a_rejected_upload_raises_its_reason(script: Script, client: Client) -> None:
    model = {"id": "mdl_1", "name": "n", "bytes": 6, "sha256": "0", "created_at": NOW}
    error = {"code": "operator_unsupported", "message": "Det", "where": "node", "hint": "h"}
    script.answers = [
        reply(201, model | {"state": "checking"}),
        reply(200, model | {"state": "checking"}),
        reply(200, model | {"state": "rejected", "error": error}),
    ]
    with pytest.raises(SecateurError) as caught:
        client.wait_ready(client.upload_model(b"x"))
    assert caught.value.as_dict() == error


def test_an_unknown_role_is_refused_before_anything_is_sent(script: Script, client: Client) -> None:
    with pytest.raises(SecateurError) as caught:
        client.submit("mdl_1", {"validation": "ds_1"})
    assert caught.value.code == "usage"
    assert script.requests == []


def test_both_clients_offer_the_same_methods() -> None:
    def public(kind: type) -> set[str]:
        return {name for name in vars(kind) if not name.startswith("_")}

    assert public(Client) == public(AsyncClient)


def test_a_deletion_whose_answer_was_lost_is_done(script: Script, client: Client) -> None:
    script.answers = [hang_up, reply(404, problem("not_found"))]
    client.delete_model("mdl_1")
    assert len(script.requests) == 2
    with pytest.raises(SecateurError) as caught:
        client.delete_model("mdl_1")
    assert caught.value.code == "not_found"


@pytest.mark.parametrize("frame", ["waiting", "told before"])
def test_streams_that_break_after_each_frame_without_news_are_given_up_for_the_list(
    script: Script, client: Client, monkeypatch: pytest.MonkeyPatch, frame: str
) -> None:
    monkeypatch.setattr("secateur.client.time.sleep", lambda _: None)
    waiting = {"at": NOW, "type": "waiting", "ahead": 1, "running": 1, "waited_seconds": 1.0}
    said = _frames(QUEUED) if frame == "told before" else _frames({"seq": 0} | waiting)
    breaks = cut(200, said, 9999, Content_Type=SSE)
    script.answers = [*[breaks] * ATTEMPTS, reply(200, {"data": [DONE], "ended": True})]
    assert [e.seq for e in client.events("job_1", after=1) if e.seq] == [4]
    assert len(script.requests) == ATTEMPTS + 1


def test_streams_that_break_after_each_event_are_taken_up_as_long_as_there_are_new_ones(
    script: Script, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secateur.client.time.sleep", lambda _: None)
    many = [{"seq": n, "at": NOW, "type": "phase", "phase": "loading"} for n in range(1, 20)]
    script.answers = [cut(200, _frames(e), 9999, Content_Type=SSE) for e in many]
    script.answers.append(reply(200, _frames(DONE | {"seq": 20}), Content_Type=SSE))
    assert [e.seq for e in client.events("job_1")] == list(range(1, 21))


def test_streams_that_end_at_once_are_given_up_for_the_list(
    script: Script, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("secateur.client.time.sleep", pauses.append)
    empty = reply(200, b"", Content_Type=SSE)
    nothing = reply(200, {"data": [], "next_after": 0, "ended": False})
    last = reply(200, {"data": [QUEUED, DONE], "next_after": 4, "ended": True})
    script.answers = [*[empty, nothing] * ATTEMPTS, last]
    assert [e.seq for e in client.events("job_1")] == [1, 4]
    assert len(script.requests) == 2 * ATTEMPTS + 1
    assert len(pauses) == ATTEMPTS
