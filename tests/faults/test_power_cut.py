"""What was answered 201 or 202 is there after a power cut, on SQLite and among the blobs."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from secateur._broker import free_port
from store import leases
from store.blobs import LocalBlobs
from store.claims import Outcome
from store.clock import utcnow
from store.db import Database
from store.migrate import upgrade
from store.queries import datasets, jobs, keys, models
from store.queries.uploads import Uploads
from store.settings import Settings
from tests.api.conftest import DATASET_FACTS, MODEL_FACTS
from tests.store.conftest import World

ROOT = Path(__file__).parents[2]
SOURCE = Path(__file__).with_name("synced.c")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    made = tmp_path_factory.mktemp("library") / "synced.so"
    command = ["cc", "-O1", "-shared", "-fPIC", "-o", str(made), str(SOURCE), "-ldl"]
    subprocess.run(command, check=True, timeout=60)
    return made


class Disk:
    """A data folder, and what of it a power cut leaves.

    Args:
        data: The folder; all that is in it now counts as synced.
        kept: Where files and folders go, by inode, whenever they are synced.
    """

    def __init__(self, data: Path, kept: Path) -> None:
        self.data, self.kept = data, kept
        kept.mkdir()
        for path in [data, *data.rglob("*")]:
            number = path.stat().st_ino
            if path.is_dir():
                listed = [f"{p.stat().st_ino} {p.name}\n" for p in path.iterdir()]
                (kept / f"{number}.names").write_text("".join(listed))
            else:
                shutil.copyfile(path, kept / str(number))

    def cut(self, into: Path) -> None:
        """Build what is left, in a folder."""
        self._fill(into, str(self.data.stat().st_ino))

    def _fill(self, folder: Path, number: str) -> None:
        folder.mkdir()
        listed = self.kept / f"{number}.names"
        for line in listed.read_text().splitlines() if listed.exists() else ():
            inode, name = line.split(" ", 1)
            if (self.kept / inode).exists():
                shutil.copyfile(self.kept / inode, folder / name)
            elif (self.kept / f"{inode}.names").exists():
                self._fill(folder / name, inode)
            else:
                (folder / name).touch()


def ready(database: Database, project: str, kind: Uploads, name: str, facts: object) -> str:
    with database.write() as session:
        row, _ = kind.create(session, project, name, World.blob(name))
    with database.write() as session:
        claim = leases.claim(session, "check", "w", utcnow(), lease_seconds=30)
        assert claim is not None
        summary = {"facts": facts.model_dump(mode="json")}
        leases.finish(session, claim, Outcome("succeeded", summary=summary), utcnow())
    return str(row.id)


@contextmanager
def serving(settings: Settings, **more: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    port = free_port()
    environment = os.environ | more | {
        "SECATEUR_DATA_DIR": str(settings.data_dir),
        "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    command = [sys.executable, "-m", "api", "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 40
    try:
        while True:
            assert process.poll() is None
            assert time.monotonic() < deadline
            try:
                httpx.get(f"{url}/healthz", timeout=2)
                break
            except httpx.TransportError:
                time.sleep(0.05)
        yield url, process
    finally:
        process.kill()
        process.wait()


def test_what_was_promised_survives_a_power_cut(library: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    settings = Settings(data_dir=data)
    upgrade(settings)
    LocalBlobs(settings.blob_dir)
    database = Database(settings)
    with database.write() as session:
        project = keys.create_project(session, "p").id
        _, secret = keys.create_key(session, project, "k")
    model = ready(database, project, models, "net.onnx", MODEL_FACTS)
    dataset = ready(database, project, datasets, "data.npz", DATASET_FACTS)
    database.dispose()
    disk = Disk(data, tmp_path / "synced")

    content = os.urandom(2_000_000)
    request = {"model": model, "data": {"calibration": dataset}}
    synced = {"LD_PRELOAD": str(library), "SECATEUR_SYNCED": str(disk.kept)}
    with serving(settings, **synced) as (url, process):
        with httpx.Client(base_url=url, headers={"authorization": f"Bearer {secret}"}) as http:
            upload = http.post("/v1/models?name=big.onnx", content=content)
            job = http.post("/v1/jobs", json=request)
            cancelled = http.post("/v1/jobs", json=request)
            cancel = http.post(f"/v1/jobs/{cancelled.json()['id']}/cancel")
            # The last one: no later commit syncs it too.
            key = http.post("/v1/keys", json={"name": "second"})
        process.send_signal(signal.SIGKILL)
        process.wait()
    answered = [r.status_code for r in (upload, job, cancelled, cancel, key)]
    assert answered == [201, 202, 202, 202, 201]

    disk.cut(tmp_path / "after")
    left = Settings(data_dir=tmp_path / "after")
    database = Database(left)
    with database.read() as session:
        row = models.get(session, project, upload.json()["id"])
        assert jobs.get(session, project, job.json()["id"]).state == "queued"
        assert jobs.get(session, project, cancelled.json()["id"]).state == "cancelled"
        assert keys.authenticate(session, key.json()["secret"]) is not None
    database.dispose()
    assert LocalBlobs(left.blob_dir).open(row.sha256, len(content)).read() == content


def test_what_is_not_synced_is_lost_in_this_power_cut(library: Path, tmp_path: Path) -> None:
    """The cut that the other test makes is a real one: commits that need not last do not."""
    settings = Settings(data_dir=tmp_path / "data")
    upgrade(settings)
    disk = Disk(settings.data_dir, tmp_path / "synced")
    program = (
        "import os, signal\n"
        "from store.db import Database\n"
        "from store.queries import keys\n"
        "from store.settings import get_settings\n"
        "database = Database(get_settings())\n"
        "for name, durable in (('durable', True), ('hasty', False)):\n"
        "    with database.write(durable=durable) as session:\n"
        "        keys.create_project(session, name)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = os.environ | {
        "SECATEUR_DATA_DIR": str(settings.data_dir),
        "PYTHONPATH": str(ROOT),
        "LD_PRELOAD": str(library),
        "SECATEUR_SYNCED": str(disk.kept),
    }
    subprocess.run([sys.executable, "-c", program], env=environment, check=False, timeout=60)
    disk.cut(tmp_path / "after")
    database = Database(Settings(data_dir=tmp_path / "after"))
    with database.read() as session:
        first = keys.first_project(session)
        assert first is not None
        assert first.name == "durable"
        assert session.connection().exec_driver_sql("SELECT count(*) FROM project").scalar() == 1
    database.dispose()
