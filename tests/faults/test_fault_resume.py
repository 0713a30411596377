"""A job whose process is killed between rounds and inside one ends with the same bytes."""

import json
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

from bench import Bench, until
from test_real_child import network, samples

from pruning.report.schema import VOLATILE
from store import leases
from store.claims import Claim, Outcome
from store.clock import utcnow
from store.queries import datasets, jobs, models
from store.tables import Artifact, Checkpoint
from worker.answer import answer
from worker.supervisor import Attempt
from worker.workplace import PROGRAM, Workplace

FACTS = {"facts": {"format": "onnx"}}

# A round takes seconds, so that there is time to be killed in.
SPEC = {
    "criterion": {"kind": "magnitude"},
    "target": {"sparsity": 0.6},
    "schedule": {"kind": "rounds", "rounds": 2, "rewind": {"kind": "weights"}},
    "recovery": {"kind": "fine_tune", "epochs": 40, "batch_size": 1},
    "trust": {"checks": False, "ladder": False, "bootstrap": 0},
}


def ready(bench: Bench, kind: Any, name: str, content: bytes) -> str:
    """An upload that counts as checked."""
    found = bench.upload(kind, name, content)
    claim = bench.claim("check")
    with bench.db.write() as session:
        assert leases.finish(session, claim, Outcome("succeeded", summary=FACTS), utcnow())
    return found


def submit(bench: Bench, earlier: str) -> str:
    with bench.db.write() as session:
        data = {"calibration": bench.dataset}
        job, _ = jobs.create(
            session, bench.project, model_id=bench.model, data=data, spec=SPEC, rewind_to=earlier
        )
    return job.id


def stored(bench: Bench, job: str) -> set[str]:
    return {row.name for row in bench.rows(Checkpoint, job_id=job)}


def phases(bench: Bench, job: str) -> list[str]:
    return [event["phase"] for event in bench.events(job) if event["type"] == "phase"]


def artifact(bench: Bench, job: str, name: str) -> bytes:
    (row,) = bench.rows(Artifact, job_id=job, name=name)
    with bench.blobs.open(row.sha256) as file:
        return file.read()


def results(bench: Bench, job: str) -> tuple[dict[str, str], dict[str, Any]]:
    """Digests of the files that are no reports, and the report without what varies."""
    rows = {row.name: row for row in bench.rows(Artifact, job_id=job)}
    report = json.loads(artifact(bench, job, "report.json"))
    files = {n: r.sha256 for n, r in rows.items() if n.startswith("small.")}
    return files, {name: value for name, value in report.items() if name not in VOLATILE}


def killed(bench: Bench, place: Workplace, claim: Claim, when: Callable[[], bool]) -> str:
    """One attempt whose process gets SIGKILL as soon as `when` says so; what became of it."""
    attempt = Attempt(place, claim)

    def kill() -> None:
        until(when, 60, "the moment to be killed")
        os.kill(attempt._children[0].pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    became = attempt.run()
    killer.join()
    return became


def test_killed_between_and_inside_rounds_a_job_ends_with_the_same_bytes(bench: Bench):
    place = bench.place(PROGRAM, sandbox="off")
    bench.model = ready(bench, models, "small.onnx", network())
    earlier = ready(bench, models, "first.onnx", network(seed=3))
    bench.dataset = ready(bench, datasets, "small.npz", samples())

    job = submit(bench, earlier)
    became = killed(
        bench, place, bench.claim(), lambda: "round-1.safetensors" in stored(bench, job)
    )
    assert became == "queued"
    before = phases(bench, job).count("recovering")
    killed(bench, place, bench.claim(), lambda: phases(bench, job).count("recovering") > before)
    assert "round-2.safetensors" not in stored(bench, job)
    assert answer(place, "cpu") == 1
    assert bench.job(job).state == "succeeded", bench.job(job).error
    assert bench.attempts(job) == ["lost", "lost", "succeeded"]
    said = [e["name"] for e in bench.events(job) if e["type"] == "checkpoint"]
    assert said == ["round-1.safetensors", "round-2.safetensors"]

    undisturbed = submit(bench, earlier)
    assert answer(place, "cpu") == 1
    files, report = results(bench, job)
    assert {"small.onnx", "small.masks.safetensors"} <= set(files)
    assert (files, report) == results(bench, undisturbed)
    manifest = json.loads(artifact(bench, job, "manifest.json"))
    assert "rewind_to" in {source["role"] for source in manifest["inputs"]}
