"""A full disk and a database that stays locked, seen at the routes of a running service."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa

from api.app import create_app
from store.migrate import upgrade
from store.settings import Settings
from tests.api.conftest import Service, assert_problem, serving
from tests.store.test_storage_failures_told import largest_file


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that waits for its database no longer than a test may."""
    folder: Path = tmp_path_factory.mktemp("failing")
    settings = Settings(data_dir=folder, device="cpu", database_wait_seconds=0.2)
    upgrade(settings)
    app = create_app(settings)
    parts = app.state.service
    with serving(app) as url:
        yield Service(app, settings, parts.database, parts.blobs, url)


@pytest.fixture(scope="module")
def http(own: Service) -> Iterator[httpx.Client]:
    with own.client(own.project()[1]) as client:
        yield client


@contextmanager
def locked(own: Service) -> Iterator[None]:
    """Somebody else writes for longer than a request waits."""
    path = own.settings.data_dir / "secateur.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            other.execute("ROLLBACK")


WRITES = [
    ("POST", "/v1/models?name=a.onnx", {"content": b"a model"}),
    ("POST", "/v1/datasets?name=a.npz", {"content": b"data"}),
    ("POST", "/v1/keys", {"json": {"name": "k"}}),
    ("DELETE", "/v1/keys/key_none", {}),
    ("DELETE", "/v1/models/mod_none", {}),
    ("POST", "/v1/jobs/job_none/cancel", {}),
    ("POST", "/v1/jobs/job_none/retry", {}),
    ("DELETE", "/v1/jobs/job_none", {}),
]


@pytest.mark.parametrize(("method", "path", "rest"), WRITES)
def test_a_write_while_the_database_is_locked_is_busy(
    own: Service, http: httpx.Client, method: str, path: str, rest: dict[str, object]
) -> None:
    with locked(own):
        response = http.request(method, path, **rest)
    assert_problem(response, 503, "database_busy")
    assert int(response.headers["retry-after"]) >= 1


def test_what_only_reads_is_answered_while_the_database_is_locked(
    own: Service, http: httpx.Client
) -> None:
    with locked(own):
        for path in ("/v1/models", "/v1/jobs", "/metrics", "/healthz", "/readyz"):
            assert http.get(path).status_code == 200, path


@contextmanager
def broken(own: Service) -> Iterator[None]:
    """The database can't be opened: its file is away, and so is its folder's right to make one."""
    data, away = own.settings.data_dir, own.settings.data_dir.with_name("away")
    own.database.dispose()
    data.rename(away)
    data.write_bytes(b"")  # not a folder
    try:
        yield
    finally:
        data.unlink()
        away.rename(data)
        own.database.dispose()


def test_without_a_database_every_answer_says_so(own: Service, http: httpx.Client) -> None:
    with broken(own):
        for path in ("/v1/models", "/v1/datasets", "/readyz"):
            assert_problem(http.get(path), 503, "unavailable")
        assert http.get("/healthz").status_code == 200
    assert http.get("/v1/models").status_code == 200


def unfinished(own: Service) -> list[Path]:
    return list((own.settings.blob_dir / "unfinished").iterdir())


@pytest.mark.parametrize("form", ["raw", "multipart", "several"])
def test_an_upload_that_finds_no_room_is_told_and_leaves_nothing(
    own: Service, http: httpx.Client, form: str
) -> None:
    content = os.urandom(3 << 20)
    files = [("file", (f"{n}.safetensors", content)) for n in range(2 if form == "several" else 1)]
    rest = {"content": content} if form == "raw" else {"files": files}
    with largest_file(1 << 20):
        response = http.post("/v1/models?name=big.onnx", **rest)
    assert_problem(response, 507, "storage_full")
    assert int(response.headers["retry-after"]) >= 1
    assert unfinished(own) == []
    assert http.get("/v1/models").json()["data"] == []


def test_a_full_database_is_told(own: Service, http: httpx.Client) -> None:
    def small(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute("PRAGMA max_page_count = 1")

    sa.event.listen(own.database.engine, "connect", small)
    own.database.dispose()
    try:
        answers = [http.post("/v1/keys", json={"name": "x" * 200}) for _ in range(60)]
    finally:
        sa.event.remove(own.database.engine, "connect", small)
        own.database.dispose()
    assert_problem(answers[-1], 507, "storage_full")
    assert {answer.status_code for answer in answers} <= {201, 507}
    assert http.get("/v1/keys").status_code == 200


def test_an_upload_that_would_take_the_reserve_is_refused_before_its_body(
    own: Service, http: httpx.Client
) -> None:
    own.blobs._reserve = 1 << 60

    def body() -> Iterator[bytes]:
        yield b"x"
        raise AssertionError("the body was asked for")

    try:
        announced = http.post("/v1/models", content=b"x" * 100)
        assert_problem(announced, 507, "storage_full")
        chunked = http.post("/v1/models", content=iter([b"x" * 100]))
        assert_problem(chunked, 507, "storage_full")
    finally:
        own.blobs._reserve = own.settings.storage_reserve_bytes
    assert unfinished(own) == []
