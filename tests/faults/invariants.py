"""What holds after every scenario, whatever was done to the service."""

import hashlib
import json
from collections import Counter
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

from pruning.report.schema import VOLATILE
from store.clock import utcnow
from store.states import TRANSITIONS
from store.sweep import REFERRERS, sweep
from store.tables import Artifact, Attempt, Checkpoint, Dataset, Job, JobEvent, Model, Outbox
from tests.faults.door import Door
from tests.faults.files import MODEL
from tests.faults.service import FINAL, NotHeldError, Service
from tests.faults.stage import Stage

NOT_THE_LAST = ("lost", "drained", "put_off")
_SETTLE = 180.0


def check(stage: Stage, *, clock: bool = True) -> None:
    """Let the service come to rest, then look at every row, file and answer.

    Args:
        stage: What did not hold is recorded there.
        clock: Whether times can be compared: nobody stepped the clock.
    """
    service = stage.service
    try:
        service.until(lambda: _settled(service), _SETTLE, "the end of all jobs")
    except NotHeldError as error:
        left = [(j.id, j.kind, j.state) for j in service.rows(Job) if j.state not in FINAL]
        stage.hold(False, f"{error}: {len(left)} are left, the first: {left[:5]}")
        return
    for job in service.rows(Job):
        _of_job(stage, job, clock)
    for door in (service.door, service.other):
        _promises(stage, door)
        _uploads(stage, door)
        for text, times in door.wrong.items():
            stage.hold(False, f"{text}, {times} times")
        door.wrong.clear()
    _files(stage)


def _settled(service: Service) -> bool:
    checking = [r for table in (Model, Dataset) for r in service.rows(table, state="checking")]
    return (
        all(job.state in FINAL for job in service.rows(Job))
        and not checking
        and not service.rows(Outbox)
    )


def _of_job(stage: Stage, job: Job, clock: bool) -> None:
    service, name = stage.service, f"job {job.id} ({job.kind}, {job.state})"
    events = service.rows(JobEvent, job_id=job.id)
    attempts = sorted(service.rows(Attempt, job_id=job.id), key=lambda a: a.number)
    numbers = [event.seq for event in events]
    stage.hold(numbers == list(range(1, job.last_seq + 1)), f"{name}: events {numbers[:50]}")

    states = [e.body["state"] for e in events if e.body["type"] == "state"]
    steps = list(pairwise(states))
    legal = states[:1] == ["queued"] and all(b in TRANSITIONS[a] for a, b in steps)
    stage.hold(legal, f"{name}: states {states}")
    final = [s for s in states if s in FINAL]
    stage.hold(final == [job.state] and states[-1] == job.state, f"{name}: final states {final}")
    stage.hold(
        bool(events) and events[-1].body["type"] == "state", f"{name}: something said after the end"
    )
    spoken = _spoken_while_queued([e.body for e in events])
    stage.hold(not spoken, f"{name}: said while nobody held it: {spoken}")

    stage.hold(
        [a.number for a in attempts] == list(range(1, job.attempt + 1))
        and job.token >= job.attempt,
        f"{name}: attempts {[a.number for a in attempts]} of {job.attempt}, token {job.token}",
    )
    outcomes = [a.outcome for a in attempts]
    good = all(o in NOT_THE_LAST for o in outcomes[:-1])
    stage.hold(good and None not in outcomes, f"{name}: attempts ended {outcomes}")
    stage.hold(states.count("running") == len(attempts), f"{name}: begun {states.count('running')}")
    if clock:
        for before, later in pairwise(attempts):
            apart = before.finished_at <= later.started_at
            stage.hold(apart, f"{name}: attempts {before.number} and {later.number} overlap")
    stage.hold(not service.rows(Checkpoint, job_id=job.id), f"{name}: checkpoints are left")
    kept = service.rows(Artifact, job_id=job.id)
    stage.hold(
        bool(kept) == (job.kind == "prune" and job.state in ("succeeded", "rejected")),
        f"{name}: {len(kept)} artifacts",
    )


def _spoken_while_queued(bodies: list[dict]) -> list[str]:
    """Events of a job's process while no worker held the job."""
    state, found = "queued", []
    for body in bodies:
        if body["type"] == "state":
            state = body["state"]
        elif state != "running" and body["type"] not in ("waiting",):
            found.append(body["type"])
    return found


def _promises(stage: Stage, door: Door) -> None:
    service = stage.service
    rows = {j.id: j for j in service.rows(Job, project_id=door.project, kind="prune")}
    named = Counter(p.job for p in door.promises)
    stage.hold(max(named.values(), default=1) == 1, "one job was promised twice")
    lost = set(named) - set(rows)
    stage.hold(not lost, f"jobs that were promised are not there: {sorted(lost)}")
    reference: tuple | None = None
    for promise in door.promises:
        job = rows.get(promise.job)
        if job is None:
            continue
        stage.hold(job.state in promise.states, f"job {job.id} is {job.state}: {job.error}")
        if job.state not in ("succeeded", "rejected"):
            continue
        files = {a.name: a for a in service.rows(Artifact, job_id=job.id)}
        if promise.seed is not None:
            wanted = hashlib.sha256(door.expected(promise.seed)).hexdigest()
            same = MODEL in files and files[MODEL].sha256 == wanted
            stage.hold(same, f"job {job.id}: other bytes than undisturbed")
        else:
            found = real_result(service, job.id, files)
            reference = reference or found
            stage.hold(found == reference, f"job {job.id}: other bytes than the first real job")


def real_result(service: Service, job: str, files: dict[str, Artifact]) -> tuple:
    """Digests of the files that are no reports, and the report without what varies."""
    with service.blobs.open(files["report.json"].sha256) as file:
        report = json.loads(file.read())
    digests = {name: row.sha256 for name, row in files.items() if name.startswith("small.")}
    return digests, {name: value for name, value in report.items() if name not in VOLATILE}


def _uploads(stage: Stage, door: Door) -> None:
    """What was answered 201 is there, with its bytes."""
    service = stage.service
    tables = {"models": Model, "datasets": Dataset}
    for path, content in door.uploads.items():
        _, _, kind, found = path.split("/")
        rows = service.rows(tables[kind], id=found)
        stage.hold(len(rows) == 1, f"{path} was answered with 201 and is not there")
        wanted = hashlib.sha256(content).hexdigest()
        stage.hold(all(r.sha256 == wanted for r in rows), f"{path} has another digest")


def _files(stage: Stage) -> None:
    """Every blob that a row names is there and right; after a sweep there is nothing else."""
    service = stage.service
    named = {row.sha256 for table in REFERRERS for row in service.rows(table)}
    for digest in named:
        there = service.blobs.exists(digest)
        stage.hold(there, f"blob {digest} is named by a row and not there")
        if there:
            with service.blobs.open(digest) as file:
                right = hashlib.sha256(file.read()).hexdigest() == digest
            stage.hold(right, f"blob {digest} has other bytes")
    # The service's own sweep leaves alone what is younger than the longest job; this one is of
    # the same code, later.
    later = utcnow() + timedelta(days=1)
    sweep(service.db, service.blobs, later)
    stored = {p.stem for p in service.settings.blob_dir.glob("[0-9a-f][0-9a-f]/*")}
    stage.hold(not stored - named, f"blobs without a row: {sorted(stored - named)[:5]}")
    unfinished = list((service.settings.blob_dir / "unfinished").iterdir())
    stage.hold(not unfinished, f"unfinished blobs: {unfinished[:5]}")


def check_end(stage: Stage, shared_before: frozenset[str]) -> None:
    """Stop the service, and see that nothing of it is left.

    Args:
        stage: What did not hold is recorded there.
        shared_before: `shared_memory()` before it was started.
    """
    service = stage.service
    took = service.stop()
    stage.hold(took < 15, f"an orderly stop took {took:.1f} s")
    # uvicorn hands its signal on once it has ended in order.
    for name in ("api", "control", "checks", "jobs"):
        code = service.ended.get(name)
        stage.hold(code in (0, -15) and (name == "api" or code == 0), f"{name} exited with {code}")
    left = service.left_processes()
    stage.hold(not left, f"processes are left: {left}")
    slots = service.settings.slots_dir
    houses = [p.name for p in slots.iterdir() if p.name != ".guard"] if slots.is_dir() else []
    stage.hold(not houses, f"slot folders are left: {houses}")
    shared = shared_memory() - shared_before
    stage.hold(not shared, f"shared memory is left: {sorted(shared)}")


def shared_memory() -> frozenset[str]:
    """Names of POSIX and System V shared memory, semaphores and queues, but PostgreSQL's own."""
    found = {f"/dev/shm/{p.name}" for p in Path("/dev/shm").glob("*")}
    found = {name for name in found if "PostgreSQL" not in name}
    for kind in ("shm", "sem", "msg"):
        table = Path("/proc/sysvipc", kind)
        lines = table.read_text().splitlines()[1:] if table.exists() else []
        rows = [line.split() for line in lines]
        # PostgreSQL holds one segment of 56 bytes, by which it knows that it runs only once.
        found |= {f"{kind} {row[1]}" for row in rows if kind != "shm" or row[3] != "56"}
    return frozenset(found)
