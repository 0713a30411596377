"""A workbench: a real store, blobs and worker whose children do what the test asks for."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa

from store import leases
from store.blobs import LocalBlobs, put
from store.claims import Claim, Outcome
from store.clock import utcnow
from store.db import Database
from store.queries import datasets, jobs, keys, models
from store.settings import Settings
from store.tables import Attempt, Base, Job, JobEvent
from worker.supervisor import Attempt as SupervisedAttempt
from worker.workplace import Workplace, open_workplace

T = TypeVar("T")
HERE = Path(__file__).parent
ROOT = HERE.parent.parent
CHILDREN = (sys.executable, "-S", "-E", str(HERE / "children.py"))
MODEL = b"a model"


def until(look: Callable[[], T], seconds: float = 20.0, what: str = "it") -> T:
    """Wait until `look` gives something true."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds} s"
        time.sleep(0.02)
    return found


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in ("Z", "X")


@dataclass
class Bench:
    settings: Settings
    db: Database
    blobs: LocalBlobs
    folder: Path
    project: str = ""
    model: str = ""
    dataset: str = ""
    places: list[Workplace] = field(default_factory=list)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def fill(self) -> None:
        with self.db.write() as session:
            self.project = keys.create_project(session, "test").id
        self.model = self.upload(models, "lenet.onnx", MODEL)
        self.dataset = self.upload(datasets, "digits.npz", b"some data")
        for _ in range(2):
            claim = self.claim("check")
            with self.db.write() as session:
                facts = {"facts": {"format": "onnx"}}
                assert leases.finish(session, claim, Outcome("succeeded", summary=facts), utcnow())

    def upload(self, kind: Any, name: str, content: bytes) -> str:
        blob = put(self.blobs, [content])
        with self.db.write() as session:
            return kind.create(session, self.project, name, blob)[0].id

    def submit(self, do: str, **spec: Any) -> str:
        """A job for the tests' child: `do` names what it does."""
        return self.submit_spec({"do": do} | spec)

    def submit_spec(self, spec: dict[str, Any]) -> str:
        with self.db.write() as session:
            job, _ = jobs.create(
                session,
                self.project,
                model_id=self.model,
                data={"calibration": self.dataset},
                spec=spec,
            )
        return job.id

    def claim(self, klass: str = "cpu") -> Claim:
        with self.db.write() as session:
            seconds = self.settings.lease_seconds
            claim = leases.claim(session, klass, "test", utcnow(), lease_seconds=seconds)
        assert claim is not None
        return claim

    def place(self, program: Sequence[str] = CHILDREN, **changes: Any) -> Workplace:
        settings = self.settings.model_copy(update=changes)
        place = open_workplace(settings, self.folder / "drain", program=program)
        self.places.append(place)
        return place

    def attempt(self, do: str, _place: Workplace | None = None, **spec: Any) -> tuple[str, Job]:
        """Submit a job, make one attempt, and give what became of it and the job."""
        job = self.submit(do, **spec)
        became = SupervisedAttempt(_place or self.place(), self.claim()).run()
        return became, self.job(job)

    def job(self, job_id: str) -> Job:
        with self.db.read() as session:
            return session.get_one(Job, job_id)

    def state(self, job_id: str, *states: str) -> Callable[[], Job | None]:
        def look() -> Job | None:
            job = self.job(job_id)
            return job if job.state in states else None

        return look

    def progress(self, job_id: str) -> str:
        return (self.job(job_id).progress or {}).get("message", "")

    def events(self, job_id: str) -> list[dict[str, Any]]:
        return [e.body for e in self.rows(JobEvent, job_id=job_id)]

    def attempts(self, job_id: str) -> list[Any]:
        return [a.outcome for a in self.rows(Attempt, job_id=job_id)]

    def rows(self, table: type[Base], **equal: Any) -> list[Any]:
        with self.db.read() as session:
            rows = sa.select(table).filter_by(**equal).order_by(*table.__table__.primary_key)
            return list(session.scalars(rows))

    def cancel(self, job_id: str) -> None:
        with self.db.write() as session:
            jobs.request_cancel(session, self.project, job_id)

    def start(self, *command: str, **env: str) -> subprocess.Popen[bytes]:
        """Start a process of the service with the bench's settings."""
        known = {
            f"SECATEUR_{k.upper()}": str(v)
            for k, v in self.settings.model_dump(exclude_defaults=True).items()
        }
        path = f"{HERE}{os.pathsep}{ROOT}"
        log = open(self.folder / f"{len(self.processes)}.log", "wb")  # noqa: SIM115
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            env=os.environ | known | {"PYTHONPATH": path} | env,
            cwd=self.folder,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        log.close()
        self.processes.append(process)
        return process

    def control(self) -> subprocess.Popen[bytes]:
        return self.start("worker.control")

    def worker(
        self,
        app: str = "bench_app",
        concurrency: int = 1,
        queues: str = "secateur.check,secateur.cpu",
        **env: str,
    ) -> subprocess.Popen[bytes]:
        options = ["--pool", "prefork", "--concurrency", str(concurrency), "--loglevel", "INFO"]
        options += ["--without-mingle", "--without-gossip", "--without-heartbeat"]
        return self.start("celery", "-A", app, "worker", *options, "-Q", queues, **env)

    def log(self) -> str:
        logs = sorted(self.folder.glob("*.log"))
        return "\n".join(f"== {p.name}\n{p.read_text(errors='replace')}" for p in logs)

    def close(self) -> None:
        # An orderly stop is what the fault tests look at; here it would only take time.
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)
        for place in self.places:
            place.close()
        self.db.dispose()
