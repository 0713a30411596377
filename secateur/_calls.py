"""What the service offers, call by call, as flows: shared by `Client` and `AsyncClient`."""

import hashlib
import json
import os
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

import httpx

from pruning.events import WaitingEvent
from secateur._files import Reporter, Source, file_sha256, safe_name, takes_long, upload_body
from secateur._flow import (
    ATTEMPTS,
    BUSY_STATUS,
    FIRST,
    NOT_CONNECTED,
    PATIENCE,
    UPLOAD_PATIENCE,
    Call,
    Emit,
    Flow,
    Open,
    Read,
    Reply,
    Sleep,
    backoff,
    request,
    retry_after,
)
from secateur._sse import Parser
from secateur.errors import SecateurError, connection_failed, from_problem
from secateur.resources import Artifact, Dataset, Job, JobEvent, Key, Model

if TYPE_CHECKING:
    from pruning.manifest import Manifest

R = TypeVar("R", Model, Dataset, Job, Key)
M = TypeVar("M", Model, Dataset)

KINDS: dict[type[Any], str] = {Model: "models", Dataset: "datasets", Job: "jobs", Key: "keys"}
_AWAY = frozenset({"unavailable", "overloaded", "database_busy"})
"""Codes of a service that may give a stream a little later."""

_STREAM_SILENCE = 60.0
"""Seconds without a byte after which an event stream is taken for dead."""


def path_of(*parts: str) -> str:
    """A path under /v1 with its parts quoted."""
    return "/v1/" + "/".join(quote(part, safe="") for part in parts)


class Calls:
    """The flows against one service. `url` is only what errors name.

    `answered`: whether the service has ever done so; who carries out the operations says it.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.answered = False

    def _request(
        self, call: Call, done_before: int | None = None, patience: float = 0.0
    ) -> Flow[Reply]:
        # Only who has answered before is taken to be away for a moment.
        attempts, patience = (ATTEMPTS, patience) if self.answered else (FIRST, 0.0)
        busy = 0.0 if call.body is None else UPLOAD_PATIENCE
        return request(call, self.url, done_before, patience, attempts, busy)

    def values(self, call: Call, patience: float = 0.0) -> Flow[Any]:
        """The JSON answer to a call.

        Raises:
            SecateurError: `digest_mismatch` where it is a file whose bytes are not those announced.
        """
        reply = yield from self._request(call, patience=patience)
        announced = reply.headers.get("x-content-sha256")
        if announced not in (None, hashlib.sha256(reply.content).hexdigest()):
            raise SecateurError(
                "digest_mismatch",
                f"{call.path} arrived with other bytes than the service announced.",
                where=call.path,
                hint="Ask for it again.",
            )
        return reply.json() if reply.content else None

    def upload(
        self,
        kind: type[R],
        source: Source,
        name: str | None,
        progress: Reporter | None,
        samples: Mapping[str, int | str] | None = None,
    ) -> Flow[R]:
        """Streams a file; the same bytes and name answer with the resource made before.

        Before a large file is hashed, the service is asked whether it is there.
        """
        if not self.answered and takes_long(source):
            yield from self.values(Call("GET", path_of("limits")))
        body, shown, sha256 = upload_body(source, name, progress)
        headers = {"Content-Type": "application/octet-stream"}
        if sha256 is not None:
            headers["X-Content-SHA256"] = sha256
        params: dict[str, Any] = {"name": shown}
        if samples:
            params["samples"] = [f"{name}={axis}" for name, axis in samples.items()]
        call = Call("POST", path_of(KINDS[kind]), params=params, headers=headers, body=body)
        try:
            return kind.model_validate((yield from self.values(call)))
        finally:
            body.close()

    def get(self, kind: type[R], id: str) -> Flow[R]:
        """One resource."""
        return kind.model_validate((yield from self.values(Call("GET", path_of(KINDS[kind], id)))))

    def delete(self, kind: type[R], id: str) -> Flow[None]:
        """Removes one resource; gone already counts when an earlier attempt may have done it."""
        yield from self._request(Call("DELETE", path_of(KINDS[kind], id)), done_before=404)

    def pages(self, kind: type[R], page: int = 100, **filters: Any) -> Flow[None]:
        """Emits all resources of a kind, page after page."""
        cursor: str | None = None
        while True:
            params = {**filters, "limit": page, "cursor": cursor}
            params = {k: v for k, v in params.items() if v is not None}
            answer = yield from self.values(Call("GET", path_of(KINDS[kind]), params=params))
            for item in answer["data"]:
                yield Emit(kind.model_validate(item))
            cursor = answer.get("next_cursor")
            if not cursor:
                return

    def wait_ready(self, item: M, timeout: float) -> Flow[M]:
        """Polls until intake has decided.

        Raises:
            SecateurError: Why it was rejected, or `not_ready` after `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        pause = 0.05
        while item.state not in ("ready", "rejected"):
            if time.monotonic() > deadline:
                raise SecateurError(
                    "not_ready",
                    f"{item.name} is still {item.state} after {timeout:g} s.",
                    where=item.id,
                    hint="Is a worker running? GET /readyz tells.",
                )
            yield Sleep(pause)
            pause = min(pause * 1.5, 0.3)
            item = yield from self.get(type(item), item.id)
        if item.failure is not None:
            raise item.failure
        return item

    def submit(
        self, request_body: Mapping[str, Any], idempotency_key: str | None, path: str = "jobs"
    ) -> Flow[Any]:
        """Posts a job or plan. The key makes a repeated POST find the job that the first made."""
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        body = {k: v for k, v in request_body.items() if v is not None}
        return (
            yield from self.values(
                Call("POST", path_of(path), json=body, headers=headers if path == "jobs" else {})
            )
        )

    def act(self, job_id: str, action: str) -> Flow[Job]:
        """Cancel or retry. A cancel can be repeated; a retry makes a new job each time."""
        call = Call("POST", path_of("jobs", job_id, action), repeatable=action == "cancel")
        answer = yield from self.values(call)
        if answer is None:
            return (yield from self.get(Job, job_id))
        return Job.model_validate(answer)

    def wait(self, job_id: str, timeout: float | None) -> Flow[Job]:
        """Polls until the job's state is final.

        Raises:
            SecateurError: `not_ready` after `timeout` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = 0.1
        while True:
            call = Call("GET", path_of("jobs", job_id))
            job = Job.model_validate((yield from self.values(call, PATIENCE)))
            if job.finished:
                return job
            if deadline is not None and time.monotonic() > deadline:
                raise SecateurError(
                    "not_ready", f"The job is still {job.state} after {timeout:g} s.", where=job_id
                )
            yield Sleep(pause)
            pause = min(pause * 1.3, 0.5)

    def events(self, job_id: str, after: int, follow: bool) -> Flow[None]:
        """Emits the job's events from `after` on, until the final one or, if not `follow`, so far.

        Streams while that works; a stream that breaks is taken up after the last event seen, and
        where streams do not get through at all, the list is polled. A service that does not answer
        any more is waited for.

        Raises:
            SecateurError: `connection_failed` once `PATIENCE` is used up.
        """
        last = after
        failures = 0 if follow else ATTEMPTS
        while failures < ATTEMPTS:
            before = last
            try:
                reply: Reply = yield Open(self._stream(job_id, last))
                if reply.status >= 400:
                    raise from_problem(reply.status, (yield from _rest()))
                if "text/event-stream" not in reply.headers.get("content-type", ""):
                    failures = ATTEMPTS
                    break
                parser = Parser()
                while chunk := (yield Read()):
                    for frame in parser.feed(chunk):
                        event = JobEvent.parse(json.loads(frame.data))
                        if isinstance(event.event, WaitingEvent):
                            yield Emit(event)
                            continue
                        if event.seq <= last:
                            continue
                        last = event.seq
                        yield Emit(event)
                        if event.final:
                            return
                if (yield from self._ended(job_id, last)):
                    return
            except httpx.TransportError as error:
                if isinstance(error, NOT_CONNECTED):  # nobody is there: until somebody answers
                    yield from self._ended(job_id, last)
            except SecateurError as error:
                if error.code not in _AWAY:
                    raise
            failures = 0 if last > before else failures + 1
            yield Sleep(backoff(failures + 1))
        yield from self._polled(job_id, last, follow)

    def _stream(self, job_id: str, last: int) -> Call:
        return Call(
            "GET",
            path_of("jobs", job_id, "events"),
            headers={"Accept": "text/event-stream", "Last-Event-ID": str(last)},
            read_timeout=_STREAM_SILENCE,
        )

    def _ended(self, job_id: str, last: int) -> Flow[bool]:
        """Whether a stream ended because nothing can follow, not because something cut it."""
        path = path_of("jobs", job_id, "events")
        call = Call("GET", path, params={"after": last, "limit": 1})
        answer = yield from self.values(call, PATIENCE)
        return bool(answer["ended"]) and not answer["data"]

    def _polled(self, job_id: str, last: int, follow: bool) -> Flow[None]:
        path = path_of("jobs", job_id, "events")
        while True:
            call = Call("GET", path, params={"after": last, "limit": 200})
            answer = yield from self.values(call, PATIENCE if follow else 0.0)
            for values in answer["data"]:
                event = JobEvent.parse(values)
                last = event.seq
                yield Emit(event)
                if event.final:
                    return
            if not answer["data"]:
                if not follow or answer["ended"]:
                    return
                yield Sleep(0.5)

    def report(self, job_id: str) -> Flow[dict[str, Any]]:
        """report.json."""
        call = Call(
            "GET", path_of("jobs", job_id, "report"), headers={"Accept": "application/json"}
        )
        return (yield from self.values(call))

    def manifest(self, job_id: str) -> Flow["Manifest"]:
        """manifest.json.

        Raises:
            SecateurError: `not_ready` for a job that is not over, `not_found` for one that left
                none.
        """
        from pruning.manifest import NAME, Manifest

        job: Job = yield from self.get(Job, job_id)
        if NAME not in {artifact.name for artifact in job.artifacts}:
            raise SecateurError(
                "not_found" if job.finished else "not_ready",
                f"The job {job_id} is {job.state} and has no {NAME}.",
                where=job_id,
                hint="Jobs that succeeded or missed a gate have one, unless they ran before there "
                "were manifests.",
            )
        values = yield from self.values(Call("GET", path_of("jobs", job_id, "artifacts", NAME)))
        return Manifest.model_validate(values)

    def download(
        self, job_id: str, folder: str | os.PathLike[str], progress: Reporter | None
    ) -> Flow[list[Path]]:
        """All artifacts of a job, into a folder."""
        job: Job = yield from self.get(Job, job_id)
        written: list[Path] = []
        for artifact in job.artifacts:
            path = yield from self.fetch(job_id, artifact, folder, progress)
            written.append(path)
        return written

    def fetch(
        self,
        job_id: str,
        artifact: Artifact,
        folder: str | os.PathLike[str],
        progress: Reporter | None,
        name: str | None = None,
    ) -> Flow[Path]:
        """One artifact: beside its place first, checked, then renamed into it.

        What an interrupted download left is taken up where it ended, and a service that does not
        answer any more is waited for.

        Raises:
            SecateurError: `digest_mismatch` where the bytes are not those that were announced.
        """
        target = Path(folder) / safe_name(artifact.name if name is None else name)
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{artifact.sha256[:16]}.part")
        path = path_of("jobs", job_id, "artifacts", artifact.name)
        failures, waited = 0, 0.0
        while not (part.exists() and part.stat().st_size >= artifact.bytes):
            have = part.stat().st_size if part.exists() else 0
            try:
                yield from self._take(path, artifact, part, have, progress)
            except _Busy as busy:
                failures += 1
                if failures >= ATTEMPTS and waited >= PATIENCE:
                    raise busy.error from None
                pause = max(backoff(failures), busy.seconds)
                waited += pause
                yield Sleep(pause)
            except httpx.TransportError as error:
                now = part.stat().st_size if part.exists() else 0
                failures, waited = (0, 0.0) if now > have else (failures + 1, waited)
                never = not self.answered and isinstance(error, NOT_CONNECTED)
                attempts, patience = (FIRST, 0.0) if never else (ATTEMPTS, PATIENCE)
                if failures >= attempts and waited >= patience:
                    raise connection_failed(self.url, error) from None
                pause = backoff(failures + 1)
                waited += pause
                yield Sleep(pause)
        if file_sha256(part) != artifact.sha256:
            part.unlink()
            raise SecateurError(
                "digest_mismatch",
                f"{artifact.name} arrived with other bytes than the service announced.",
                where=artifact.name,
                hint="Download it again.",
            )
        os.replace(part, target)
        return target

    def _take(
        self, path: str, artifact: Artifact, part: Path, have: int, progress: Reporter | None
    ) -> Flow[None]:
        headers = {"Accept-Encoding": "identity"}
        if have:
            headers |= {"Range": f"bytes={have}-", "If-Range": f'"{artifact.sha256}"'}
        reply: Reply = yield Open(Call("GET", path, headers=headers))
        if reply.status in BUSY_STATUS:
            raise _Busy(from_problem(reply.status, (yield from _rest())), retry_after(reply))
        if reply.status >= 400:
            raise from_problem(reply.status, (yield from _rest()))
        done = have if reply.status == 206 else 0
        with part.open("ab" if done else "wb") as file:
            while chunk := (yield Read()):
                file.write(chunk)
                done += len(chunk)
                if progress is not None:
                    progress(done, artifact.bytes)
            file.flush()
            os.fsync(file.fileno())
        if done < artifact.bytes:
            raise httpx.ReadError("the body ended early")


class _Busy(Exception):  # noqa: N818 - no error yet: it is tried again
    """The service takes no more downloads at the moment."""

    def __init__(self, error: SecateurError, seconds: float) -> None:
        super().__init__(str(error))
        self.error, self.seconds = error, seconds


def _rest() -> Flow[bytes]:
    """What is left of an opened body."""
    content = b""
    while chunk := (yield Read()):
        content += chunk
    return content
