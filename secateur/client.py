"""The typed client, blocking.

    with Client() as client:
        model = client.wait_ready(client.upload_model("lenet.onnx"))
        data = client.wait_ready(client.upload_dataset("digits.npz"))
        job = client.submit(model, data, {"criterion": {"kind": "obs"}})
        for event in client.events(job):
            print(event.event)
        client.download(job, "pruned/")

Every method raises `SecateurError`, never an httpx exception. Calls that are safe to repeat are
repeated after lost connections and 429, 502, 503, 504; `submit` is made safe by an idempotency key.
"""

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import httpx

from secateur import _calls, _drive
from secateur._files import Reporter, Source
from secateur._flow import Call, Emit, Flow, Open, Operation, Read, Send, Sleep, returning
from secateur._requests import Named, Reference, ident, job_request
from secateur.config import resolve
from secateur.resources import Artifact, Dataset, Job, JobEvent, Key, Model

if TYPE_CHECKING:
    from pruning.manifest import Manifest

T = TypeVar("T")
M = TypeVar("M", Model, Dataset)


class Client:
    """One service, seen by one key.

    Args:
        url: Defaults to SECATEUR_URL, then to the service whose credentials were written last.
        api_key: Defaults to SECATEUR_API_KEY, then to the credentials file's key for that URL.
        timeout: Seconds without progress on a connection before it is given up.
        transport: An httpx transport, for use without a network.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        timeout: float = 60.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        connection = resolve(url, api_key)
        self.url = connection.url
        self._timeout = timeout
        self._calls = _calls.Calls(connection.url)
        self._http = httpx.Client(transport=transport, **_drive.settings(connection, timeout))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes all connections."""
        self._http.close()

    def _iterate(self, flow: Flow[Any]) -> Iterator[Any]:
        opened: httpx.Response | None = None
        chunks: Iterator[bytes] = iter(())
        answer: Any = None
        error: httpx.TransportError | None = None
        try:
            while True:
                try:
                    step: Operation = flow.throw(error) if error else flow.send(answer)
                except StopIteration:
                    return
                answer = error = None
                if isinstance(step, Emit):
                    yield step.value
                    continue
                try:
                    if isinstance(step, Send):
                        response = self._send(step.call, stream=False)
                        answer = _drive.reply_of(response, response.content)
                    elif isinstance(step, Open):
                        if opened is not None:
                            opened.close()
                        opened = self._send(step.call, stream=True)
                        chunks = opened.iter_bytes()
                        answer = _drive.reply_of(opened)
                    elif isinstance(step, Read):
                        answer = next(chunks, b"")
                    elif isinstance(step, Sleep):
                        time.sleep(step.seconds)
                except httpx.TransportError as failure:
                    error = failure
        finally:
            flow.close()
            if opened is not None:
                opened.close()

    def _send(self, call: Call, *, stream: bool) -> httpx.Response:
        body = call.body.chunks() if call.body is not None else None
        arguments = _drive.arguments(call, self._timeout, self._calls.answered)
        request = self._http.build_request(call.method, call.path, content=body, **arguments)
        response = self._http.send(request, stream=stream)
        self._calls.answered = True
        return response

    def _run(self, flow: Flow[T]) -> T:
        (result,) = self._iterate(returning(flow))
        return result  # type: ignore[no-any-return]

    def upload_model(
        self,
        source: Source,
        name: str | None = None,
        *,
        samples: Mapping[str, int | str] | None = None,
        progress: Reporter | None = None,
    ) -> Model:
        """Uploads a network (a path, bytes or a binary file); `wait_ready` tells when it is read.

        The same bytes under the same name answer with the model that they already made.
        `samples` says which axis of an input holds the samples, or `shared`, where the file does
        not tell.
        """
        return self._run(self._calls.upload(Model, source, name, progress, samples))

    def upload_dataset(
        self, source: Source, name: str | None = None, *, progress: Reporter | None = None
    ) -> Dataset:
        """Uploads arrays (.npz)."""
        return self._run(self._calls.upload(Dataset, source, name, progress))

    def wait_ready(self, item: M, timeout: float = 300.0) -> M:
        """Waits until intake has read the upload; raises what it was rejected for."""
        return self._run(self._calls.wait_ready(item, timeout))

    def model(self, id: str) -> Model:
        """One model."""
        return self._run(self._calls.get(Model, id))

    def dataset(self, id: str) -> Dataset:
        """One dataset."""
        return self._run(self._calls.get(Dataset, id))

    def models(self) -> Iterator[Model]:
        """All models, page after page."""
        return self._iterate(self._calls.pages(Model))

    def datasets(self) -> Iterator[Dataset]:
        """All datasets, page after page."""
        return self._iterate(self._calls.pages(Dataset))

    def delete_model(self, model: Reference) -> None:
        """Deletes a model that no job uses."""
        self._run(self._calls.delete(Model, ident(model)))

    def delete_dataset(self, dataset: Reference) -> None:
        """Deletes a dataset that no job uses."""
        self._run(self._calls.delete(Dataset, ident(dataset)))

    def submit(
        self,
        model: Reference,
        data: Named,
        spec: Mapping[str, Any] | None = None,
        *,
        name: str | None = None,
        priority: int | None = None,
        idempotency_key: str | None = None,
        rewind_to: Reference | None = None,
    ) -> Job:
        """Submits a job.

        Args:
            model: A `Model` or its id.
            data: A dataset or its id (the calibration data), or a mapping from `calibration`,
                `training`, `evaluation` to datasets.
            spec: What to do; everything left out has a default.
            name: Shown in lists.
            priority: 0 to 9, larger first among the jobs of the project.
            idempotency_key: Two submissions with the same key and content are one job. Made up
                for each call when left out, so that its own repetitions are safe.
            rewind_to: A `Model` or its id, an earlier checkpoint of the same network, for schedules
                that go back to one or start from it.
        """
        request = job_request(model, data, spec, name, priority, rewind_to)
        return Job.model_validate(self._run(self._calls.submit(request, idempotency_key)))

    def plan(
        self,
        model: Reference,
        data: Named,
        spec: Mapping[str, Any] | None = None,
        *,
        rewind_to: Reference | None = None,
    ) -> dict[str, Any]:
        """What a job would do and cost, or the error it would meet, without running it."""
        request = job_request(model, data, spec, rewind_to=rewind_to)
        return self._run(self._calls.submit(request, None, path="plans"))  # type: ignore[no-any-return]

    def job(self, id: str) -> Job:
        """One job."""
        return self._run(self._calls.get(Job, id))

    def jobs(self, state: str | None = None) -> Iterator[Job]:
        """All jobs, newest first, page after page."""
        return self._iterate(self._calls.pages(Job, state=state))

    def delete_job(self, job: Reference) -> None:
        """Deletes a finished job and its artifacts."""
        self._run(self._calls.delete(Job, ident(job)))

    def cancel(self, job: Reference) -> Job:
        """Asks for the end of a job; it is `cancelled` once its process is gone."""
        return self._run(self._calls.act(ident(job), "cancel"))

    def retry(self, job: Reference) -> Job:
        """A new job that does the same."""
        return self._run(self._calls.act(ident(job), "retry"))

    def wait(self, job: Reference, timeout: float | None = None) -> Job:
        """Waits for a final state; failing is a state here, not an exception."""
        return self._run(self._calls.wait(ident(job), timeout))

    def events(self, job: Reference, after: int = 0, *, follow: bool = True) -> Iterator[JobEvent]:
        """The job's events, from number `after` on, as they happen, until the final one.

        A broken stream is taken up where it broke. `follow=False` ends with what there is.
        """
        return self._iterate(self._calls.events(ident(job), after, follow))

    def report(self, job: Reference) -> dict[str, Any]:
        """report.json of a finished job."""
        return self._run(self._calls.report(ident(job)))

    def manifest(self, job: Reference) -> "Manifest":
        """manifest.json of a finished job: its inputs, outputs and circumstances by digest."""
        return self._run(self._calls.manifest(ident(job)))

    def download(
        self, job: Reference, folder: str | os.PathLike[str], *, progress: Reporter | None = None
    ) -> list[Path]:
        """All artifacts, checked against their digests; interrupted ones are taken up."""
        return self._run(self._calls.download(ident(job), folder, progress))

    def fetch(
        self,
        job: Reference,
        artifact: Artifact,
        folder: str | os.PathLike[str],
        *,
        name: str | None = None,
        progress: Reporter | None = None,
    ) -> Path:
        """One artifact, under its own name or another."""
        return self._run(self._calls.fetch(ident(job), artifact, folder, progress, name))

    def get(self, path: str) -> Any:
        """The JSON answer to GET under the service's URL (`/v1/criteria`, `/v1/limits`, ...)."""
        return self._run(self._calls.values(Call("GET", path)))

    def criteria(self) -> dict[str, Any]:
        """The catalogue: criteria and compensations with formulas, papers and parameters."""
        return self.get("/v1/criteria")  # type: ignore[no-any-return]

    def limits(self) -> dict[str, Any]:
        """The service's limits."""
        return self.get("/v1/limits")  # type: ignore[no-any-return]

    def keys(self) -> Iterator[Key]:
        """The project's keys, without secrets."""
        return self._iterate(self._calls.pages(Key))

    def create_key(self, name: str) -> Key:
        """A new key; its secret is in this answer and never again."""
        call = Call("POST", "/v1/keys", json={"name": name}, repeatable=False)
        return Key.model_validate(self._run(self._calls.values(call)))

    def delete_key(self, key: Reference) -> None:
        """Revokes a key."""
        self._run(self._calls.delete(Key, ident(key)))
