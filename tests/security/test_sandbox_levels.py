"""Which level is in force, what refuses to start without one, and where the level is shown."""

import errno
import json
import logging
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from api.app import create_app
from api.views import job_view
from pruning.errors import SecateurError
from store import leases, roster
from store.blobs import Blobs, LocalBlobs, put
from store.claims import Outcome
from store.clock import utcnow
from store.db import Database
from store.migrate import upgrade
from store.queries import jobs, keys, models
from store.settings import Settings
from store.tables import Job
from tests.api.conftest import serving
from worker import reach
from worker.levels import OLDEST_LANDLOCK, Means, choose, means, sandbox_of

ROOT = Path(__file__).parents[2]
NOTHING = Means(landlock=0, seccomp=False, bubblewrap=None)

needs_landlock = pytest.mark.skipif(
    not (means().landlock >= OLDEST_LANDLOCK and means().seccomp),
    reason="no Landlock or seccomp here",
)

# A machine without Landlock: its system calls do not exist for this process and what it starts.
BARE = f"""
import ctypes, errno, os, sys
from worker import seccomp
ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)
missing = seccomp._deny(444, 0x00050000 | {errno.ENOSYS})
seccomp._install([*seccomp._prologue(), *missing, (6, 0, 0, 0x7FFF0000)], 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def on_a_bare_machine(tmp_path: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess:
    """Run Python where neither bubblewrap nor Landlock can be had."""
    return subprocess.run(
        [sys.executable, "-c", BARE, *arguments],
        env={
            "PATH": str(tmp_path / "nothing"),
            "PYTHONPATH": str(ROOT),
            "SECATEUR_DATA_DIR": str(tmp_path / "data"),
            "SECATEUR_REDIS_URL": "redis://127.0.0.1:1/0",
            **env,
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


CELERY = ["-m", "celery", "-A", "worker.app", "worker", "--pool", "prefork", "--concurrency", "1"]


@needs_landlock
def test_a_worker_that_requires_a_sandbox_does_not_start_without(tmp_path: Path):
    ended = on_a_bare_machine(tmp_path, *CELERY, SECATEUR_SANDBOX="required")
    assert ended.returncode == 1
    assert "sandbox_unavailable [SECATEUR_SANDBOX]" in ended.stderr
    assert "bubblewrap is not installed" in ended.stderr
    assert "no Landlock" in ended.stderr
    assert "docs/sandbox.md" in ended.stderr
    assert (ROOT / "docs" / "sandbox.md").is_file()


LEVEL = """
import logging
from store.settings import Settings
from worker.levels import sandbox_of
logging.basicConfig()
found = sandbox_of(Settings())
print(found.level, found.seccomp)
"""


@needs_landlock
def test_the_best_of_a_bare_machine_is_a_filter_and_a_warning(tmp_path: Path):
    ended = on_a_bare_machine(tmp_path, "-c", LEVEL)
    assert ended.stdout.split() == ["limits", "True"], ended.stderr
    assert "children run with resource limits alone: bubblewrap is not installed" in ended.stderr


def test_off_means_limits_and_no_complaint(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        found = sandbox_of(Settings(data_dir=tmp_path, sandbox="off"))
    assert (found.level, found.abi, found.seccomp, found.bubblewrap) == ("limits", 0, False, None)
    assert caplog.records == []


@pytest.mark.parametrize(
    ("has", "says"),
    [
        (NOTHING, "seccomp"),
        (Means(landlock=0, seccomp=True, bubblewrap=None), "no Landlock"),
        (Means(landlock=1, seccomp=True, bubblewrap=None), "an early version"),
        (Means(landlock=0, seccomp=True, bubblewrap="/bin/false"), "bubblewrap does not work"),
        (Means(landlock=0, seccomp=True, bubblewrap="/no/such/file"), "No such file"),
    ],
)
def test_what_is_required_and_can_not_be_had_is_an_error_that_says_why(has: Means, says: str):
    with pytest.raises(SecateurError) as caught:
        choose("required", has=has)
    assert caught.value.code == "sandbox_unavailable"
    assert says in caught.value.message
    assert choose("best", has=has).level == "limits"


@needs_landlock
def test_where_bubblewrap_does_not_work_landlock_takes_its_place():
    found = choose("required", has=Means(means().landlock, True, "/bin/false"))
    assert found.level == "landlock"
    assert "bubblewrap does not work here" in found.reason


@needs_landlock
@pytest.mark.parametrize("version", range(2, 8))
def test_every_version_of_landlock_from_the_second_to_the_kernels_is_enough(version: int):
    if version > means().landlock:
        pytest.skip(f"this kernel has version {means().landlock}")
    assert choose("required", has=Means(version, True, None)).level == "landlock"


@needs_landlock
def test_data_that_children_could_read_are_no_sandbox():
    with pytest.raises(SecateurError, match="the service keeps /usr/share/secateur, and children"):
        choose("required", private=[Path("/usr/share/secateur")])
    assert choose("best", private=[Path("/usr/share/secateur")]).level == "limits"


@needs_landlock
def test_folders_of_the_operators_choice_may_be_read_unless_they_hold_the_data(tmp_path: Path):
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    settings = Settings(data_dir=tmp_path / "data", sandbox_read=str(plugins), sandbox="required")
    assert sandbox_of(settings).more == (str(plugins),)
    with pytest.raises(SecateurError, match="children read"):
        sandbox_of(settings.model_copy(update={"sandbox_read": str(tmp_path)}))


def test_a_child_may_not_read_what_lies_beside_the_code():
    open_to = reach.reach([sys.executable], gpu=False, outer={})
    assert open_to.shows(ROOT / "docker-compose.yml") is None
    assert open_to.shows(ROOT / "pruning" / "errors.py") is not None
    assert open_to.shows(Path.home() / ".secateur") is None
    assert open_to.shows(Path("/etc/passwd")) is None


def test_no_gpu_passes_through_unless_asked_for():
    plain = reach.reach([sys.executable], gpu=False, outer={})
    assert not any("nvidia" in device for device in plain.devices)
    assert plain.gpu == ()
    assert reach.reach([sys.executable], gpu=True, outer={}).gpu == reach.gpu_nodes()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = Settings(data_dir=tmp_path, sandbox="required")
    made.blob_dir.mkdir()
    upgrade(made)
    return made


def test_readiness_shows_the_setting_and_the_levels_of_living_workers(settings: Settings):
    database = Database(settings)
    now = utcnow()
    with database.write() as session:
        roster.seen(session, "dead", "limits", now - timedelta(minutes=5))
        roster.seen(session, "one", "bubblewrap", now)
        roster.seen(session, "two", "landlock", now)
        roster.seen(session, "two", "bubblewrap", now)
    with serving(create_app(settings)) as url:
        ready = httpx.get(f"{url}/readyz").json()
        assert ready["sandbox"] == {"setting": "required", "levels": {"bubblewrap": 2}}
        with database.write() as session:
            roster.gone(session, "one")
            roster.gone(session, "two")
        assert httpx.get(f"{url}/readyz").json()["sandbox"]["levels"] == {}
    database.dispose()


def test_a_job_shows_the_level_of_each_attempt(settings: Settings):
    database = Database(settings)
    blobs: Blobs = LocalBlobs(settings.blob_dir)
    with database.write() as session:
        project = keys.create_project(session, "test").id
        model, _ = models.create(session, project, "a.onnx", put(blobs, [b"model"]))
        check = leases.claim(session, "check", "w", utcnow(), lease_seconds=9)
        assert check is not None
        ready = Outcome("succeeded", summary={"facts": {"format": "onnx"}})
        assert leases.finish(session, check, ready, utcnow())
        job, _ = jobs.create(session, project, model_id=model.id, data={}, spec={})
    error = SecateurError("child_crashed", "It died.").as_dict()
    for level in ("landlock", "limits"):
        with database.write() as session:
            claim = leases.claim(session, "cpu", "w", utcnow(), lease_seconds=9, sandbox=level)
            assert claim is not None
            leases.lose(session, claim, error, utcnow(), max_attempts=3)
    with database.read() as session:
        shown = json.loads(job_view(session.get_one(Job, job.id)).model_dump_json())
    tries = [(a["number"], a["worker"], a["outcome"], a["sandbox"]) for a in shown["attempts"]]
    assert tries == [(1, "w", "lost", "landlock"), (2, "w", "lost", "limits")]
    assert all(a["started_at"] <= a["finished_at"] for a in shown["attempts"])
    database.dispose()
