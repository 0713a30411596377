"""One bit of a stored file turns over: no byte of it is served, resumed from or trusted."""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from store.blobs import put
from store.tables import Artifact, Checkpoint
from tests.faults import child
from tests.faults.door import code_of
from tests.faults.files import network, quick, samples
from tests.faults.service import FINAL
from tests.faults.stage import Stage

SHORT, LONG = 24, 1000
_CHECKPOINTS, _JOBS, _REUPLOADS = 0.1, 0.08, 0.12
_TOLD_EVERY = 100


def run(stage: Stage) -> None:
    flips = stage.rounds
    _checkpoints(stage, max(4, int(_CHECKPOINTS * flips)))
    _inputs_of_jobs(stage, max(2, int(_JOBS * flips)))
    _uploads_again(stage, max(2, int(_REUPLOADS * flips)))
    _downloads(stage, flips - stage.done)
    quarantine = stage.service.settings.blob_dir / "quarantine"
    found = len(list(quarantine.glob("*"))) if quarantine.is_dir() else 0
    stage.note(f"{found} files in quarantine")
    shutil.rmtree(quarantine, ignore_errors=True)


def _flip(stage: Stage, path: Path) -> int:
    """Turn one bit of a file over, as a disk does: no time of the file changes. Its position."""
    before = path.stat()
    content = bytearray(path.read_bytes())
    position = stage.random.randrange(len(content))
    content[position] ^= 1 << stage.random.randrange(8)
    path.chmod(0o640)
    with path.open("r+b") as file:
        file.write(content)
    path.chmod(0o440)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    stage.done += 1
    if stage.done % _TOLD_EVERY == 0:
        stage.say(f"{stage.done}/{stage.rounds} bits")
    return position


def _downloads(stage: Stage, flips: int) -> None:
    """Artifacts, asked for whole, by ranges, by their heads, and as a report."""
    service, door = stage.service, stage.service.door
    jobs = [door.submit(child.LARGE, steps=1, ms=10, salt=900 + n) for n in range(3)]
    for job in jobs:
        service.ends(job)
    rows = [row for job in jobs for row in service.rows(Artifact, job_id=job)]
    content = {row.id: service.blobs.path(row.sha256).read_bytes() for row in rows}
    told = 0
    for _ in range(flips):
        row = stage.random.choice(rows)
        path = service.blobs.path(row.sha256)
        beside = path.with_name(path.name + ".chunks")
        at = None if beside.exists() and stage.random.random() < 0.1 else _flip(stage, path)
        if at is None:
            _flip(stage, beside)
        asked = _Asked.drawn(stage, row, at)
        told += asked.judged(stage, content[row.id])
        put(service.blobs, [content[row.id]])
    stage.note(f"{told} of {flips} artifacts told damaged or cut")
    for row in rows:
        same = door.fetched(row.job_id, row.name) == content[row.id]
        stage.hold(same, f"{row.name} is not whole after its bytes were stored again")


@dataclass(frozen=True)
class _Asked:
    """One download, and where the damage is; None beside the file."""

    path: str
    headers: dict[str, str]
    start: int
    stop: int
    at: int | None

    @classmethod
    def drawn(cls, stage: Stage, row: Artifact, at: int | None) -> "_Asked":
        path = f"/v1/jobs/{row.job_id}/artifacts/{row.name}"
        if row.name == "report.json" and stage.random.random() < 0.5:
            path = f"/v1/jobs/{row.job_id}/report?format=json"
        if stage.random.random() < 0.5:
            return cls(path, {}, 0, row.bytes, at)
        start = stage.random.randrange(row.bytes)
        stop = stage.random.randint(start + 1, row.bytes)
        if at is not None and stage.random.random() < 0.5:
            start, stop = min(start, at), max(stop, at + 1)
        return cls(path, {"Range": f"bytes={start}-{stop - 1}"}, start, stop, at)

    def judged(self, stage: Stage, content: bytes) -> bool:
        """Ask; whether the damage was told, by the code or by an answer that was cut."""
        try:
            answer = stage.service.door.http.get(self.path, headers=self.headers)
        except httpx.TransportError:
            return True
        if answer.status_code in (200, 206):
            right = answer.content == content[self.start : self.stop]
            stage.hold(right, f"{self.path} {self.headers} served a damaged byte at {self.at}")
            return False
        told = code_of(answer) == "file_damaged"
        stage.hold(told, f"{self.path} answered {answer.status_code} {answer.text[:200]}")
        return told


def _inputs_of_jobs(stage: Stage, flips: int) -> None:
    """A job on a damaged upload fails with a code; the same bytes sent again make it well."""
    service, door = stage.service, stage.service.door
    large = samples(5, 60_000)
    data = door.upload("datasets", "large.npz", large)
    door.checked(f"/v1/datasets/{data}")
    uploads = {("models", "small.onnx"): door.model_bytes, ("datasets", "large.npz"): large}
    for number in range(flips):
        (kind, name), content = stage.random.choice(list(uploads.items()))
        _flip(stage, service.blobs.path(hashlib.sha256(content).hexdigest()))
        body = door.request(_spec(number)) | {"data": {"calibration": data}}
        job = service.ends(door.promised(body, None, ("failed",)))
        code = (job.error or {}).get("code")
        stage.hold(code == "file_damaged", f"a job on damaged {name} ended {job.state}, {code}")
        door.upload(kind, name, content)
        again = door.ask("POST", f"/v1/jobs/{job.id}/retry")
        accepted = again is not None and again.status_code == 202
        stage.hold(accepted, "the retry was not accepted")
        if accepted:
            ended = service.ends(again.json()["id"])
            found = [a.sha256 for a in ended.artifacts if a.name == "small.onnx"]
            seed = body["spec"]["seed"]
            wanted = hashlib.sha256(child.artifact(seed, door.model_bytes, large)).hexdigest()
            stage.hold(
                found == [wanted], f"after {name} was sent again the job ended {ended.error}"
            )


def _spec(number: int) -> dict[str, object]:
    return quick(child.seed_of(steps=1, ms=5, salt=number % 1000))


def _uploads_again(stage: Stage, flips: int) -> None:
    """The same bytes sent again replace the damaged file, though nobody has read it."""
    service, door = stage.service, stage.service.door
    content = network(4242)
    door.checked(f"/v1/models/{door.upload('models', 'again.onnx', content)}")
    path = service.blobs.path(hashlib.sha256(content).hexdigest())
    for _ in range(flips):
        _flip(stage, path)
        door.upload("models", "again.onnx", content)
        stage.hold(path.read_bytes() == content, "an upload trusted the damaged file of its bytes")
        if path.read_bytes() != content:
            put(service.blobs, [content])


def _checkpoints(stage: Stage, flips: int) -> None:
    """A job resumes from what is whole, to the same bytes (the promises hold it to that)."""
    service, door = stage.service, stage.service.door
    done = 0
    while done < flips:
        jobs = [door.submit(steps=6, ms=150, salt=950 + n) for n in range(2)]
        service.runs(jobs[0])
        service.until(lambda found=jobs: _saved(stage, found), 30, "checkpoints")
        with _drained(stage):
            for row in _saved(stage, jobs):
                if done < flips and stage.random.random() < 0.8:
                    _flip(stage, service.blobs.path(row.sha256))
                    done += 1
        for job in jobs:
            ended = service.ends(job)
            stage.hold(ended.state == "succeeded", f"a damaged checkpoint: {ended.error}")


@contextlib.contextmanager
def _drained(stage: Stage) -> Iterator[None]:
    """Inside, no worker runs."""
    service = stage.service
    service.away.add("jobs")
    service.parts["jobs"].signal(15)
    service.gone("jobs")
    yield
    service.away.clear()


def _saved(stage: Stage, jobs: list[str]) -> list[Checkpoint]:
    """The jobs' checkpoints, once there are three; all there are once the jobs are over."""
    service = stage.service
    rows = [row for job in jobs for row in service.rows(Checkpoint, job_id=job)]
    over = all(service.job(job).state in FINAL for job in jobs)
    return rows if len(rows) >= 3 or over else []
