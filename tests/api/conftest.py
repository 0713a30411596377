"""A real server on a real SQLite store; each test has a project of its own.

No worker runs here: `Service.settle` and `Service.run` do through `store.leases` what one would.
"""

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from api import server as http_server
from api.app import create_app
from pruning.events import Event
from pruning.facts import DatasetFacts, LayerFact, ModelFacts, TargetFact, TensorFact
from store import leases
from store.blobs import LocalBlobs, put
from store.claims import Claim, NewArtifact, Outcome
from store.clock import utcnow
from store.db import Database
from store.migrate import upgrade
from store.queries import keys
from store.settings import Settings

MODEL_LIMIT = 2 << 20


def layer(name: str, out: int, inputs: int, is_output: bool = False) -> LayerFact:
    return LayerFact(
        name=name,
        kind="Linear",
        weight=f"{name}.weight",
        shape=[out, inputs],
        parameters=out * inputs,
        dtype="float32",
        positions=1,
        macs=out * inputs,
        activation_bytes=4 * out,
        is_output=is_output,
    )


MODEL_FACTS = ModelFacts(
    format="onnx",
    version="17",
    inputs=[TensorFact(name="x", dtype="float32", shape=["batch", 64])],
    outputs=[TensorFact(name="logits", dtype="float32", shape=["batch", 10])],
    layers=[layer("fc1", 32, 64), layer("fc2", 10, 32, is_output=True)],
    dtypes=["float32"],
    parameters=32 * 64 + 32 + 320 + 10,
    prunable_parameters=32 * 64 + 320,
    macs=32 * 64 + 320,
    activation_bytes=168,
)
DATASET_FACTS = DatasetFacts(
    format="npz",
    samples=100,
    arrays=[TensorFact(name="x", dtype="float32", shape=[100, 64])],
    target=TargetFact(dtype="int64", shape=[100], classes=10),
    bytes=100 * 64 * 4 + 800,
)
NO_SUCH = {"error": {"code": "model_unreadable", "message": "No graph.", "hint": "Export again."}}


@dataclass
class Service:
    """A running server and the store behind it."""

    app: FastAPI
    settings: Settings
    database: Database
    blobs: LocalBlobs
    url: str

    def project(self, name: str = "test") -> tuple[str, str]:
        with self.database.write() as session:
            project = keys.create_project(session, name)
            _, secret = keys.create_key(session, project.id, "first")
            return project.id, secret

    def client(self, secret: str | None, **options: Any) -> httpx.Client:
        headers = {"authorization": f"Bearer {secret}"} if secret else {}
        # No TLS here: reading the certificate authorities would take most of the time.
        return httpx.Client(base_url=self.url, headers=headers, timeout=30, verify=False, **options)

    def claim(self, klass: str) -> Claim | None:
        with self.database.write() as session:
            return leases.claim(session, klass, "test-worker", utcnow(), lease_seconds=30)

    def claim_job(self, job_id: str) -> Claim:
        """Claims this job; jobs that earlier tests left behind end on the way."""
        while (claim := self.claim("cpu")) is not None:
            if claim.job_id == job_id:
                return claim
            self.finish(claim, Outcome("failed", error={"code": "cancelled", "message": "old"}))
        raise AssertionError(f"{job_id} is not queued")

    def finish(self, claim: Claim, outcome: Outcome) -> None:
        with self.database.write() as session:
            assert leases.finish(session, claim, outcome, utcnow())

    def report(self, claim: Claim, *events: Event) -> None:
        with self.database.write() as session:
            assert leases.report(session, claim, events, utcnow())

    def settle(self, facts: dict[str, Any] | None = None) -> None:
        """Ends every intake check: with the facts for its subject's id, or as rejected."""
        while (claim := self.claim("check")) is not None:
            assert claim.subject is not None
            found = (facts or {}).get(claim.subject.id)
            outcome = (
                Outcome("succeeded", summary={"facts": found.model_dump(mode="json")})
                if found
                else Outcome("rejected", error=NO_SUCH["error"])
            )
            self.finish(claim, outcome)

    def artifact(self, name: str, kind: str, content: bytes) -> NewArtifact:
        return NewArtifact(name, kind, put(self.blobs, [content]))


@dataclass
class Caller:
    """One project's way in."""

    service: Service
    project_id: str
    secret: str
    http: httpx.Client

    def upload(self, kind: str, content: bytes, facts: Any = None) -> str:
        """Uploads and settles; the id."""
        response = self.http.post(f"/v1/{kind}", content=content, params={"name": f"{kind}.bin"})
        assert response.status_code == 201, response.text
        found = response.json()["id"]
        self.service.settle({found: facts})
        return found

    def ready(self) -> dict[str, Any]:
        """A job request on a ready model and ready data."""
        mark = hashlib.sha256(self.project_id.encode()).digest()
        return {
            "model": self.upload("models", b"model" + mark, MODEL_FACTS),
            "data": {"calibration": self.upload("datasets", b"data" + mark, DATASET_FACTS)},
        }

    def submit(self, **changes: Any) -> dict[str, Any]:
        response = self.http.post("/v1/jobs", json=self.ready() | changes)
        assert response.status_code == 202, response.text
        return response.json()


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    options = {"port": 0, "log_level": "critical", "timeout_graceful_shutdown": 1}
    server = uvicorn.Server(http_server.config(app, **options))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10)


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder: Path = tmp_path_factory.mktemp("service")
    settings = Settings(
        data_dir=folder,
        database_url=f"sqlite:///{folder / 'test.db'}",
        blob_dir=folder / "blobs",
        model_bytes_limit=MODEL_LIMIT,
        dataset_bytes_limit=1 << 30,
        upload_idle_seconds=1.5,
        project_event_streams_limit=30,
        queued_jobs_limit=5,
        device="cpu",
    )
    upgrade(settings)
    app = create_app(settings)
    parts = app.state.service
    with serving(app) as url:
        yield Service(app, settings, parts.database, parts.blobs, url)


@pytest.fixture
def caller(service: Service) -> Iterator[Caller]:
    project_id, secret = service.project()
    with service.client(secret) as http:
        yield Caller(service, project_id, secret, http)


@pytest.fixture
def stranger(service: Service) -> Iterator[Caller]:
    """Somebody with a project of their own."""
    project_id, secret = service.project("stranger")
    with service.client(secret) as http:
        yield Caller(service, project_id, secret, http)


def assert_problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The response is a complete problem; its members."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    found = response.json()
    assert found["code"] == code, found
    assert found["status"] == status
    assert found["type"] == f"/problems/{code}"
    assert found["title"]
    assert found["detail"]
    assert found["instance"] == response.request.url.path
    assert found["request_id"] == response.headers["x-request-id"]
    assert "Traceback" not in response.text
    return found
