"""Damaged files never enter a job, and the same bytes again mend what they broke."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bench import MODEL, Bench

from store.blobs import put
from store.claims import Outcome
from store.clock import utcnow
from store.leases import finish
from store.queries import datasets, jobs, models
from store.queries.uploads import UploadedFile
from store.tables import Checkpoint, Dataset, Model
from tests.faults.damage import DAMAGES, flip, truncate
from worker.answer import answer
from worker.supervisor import Attempt

DATA = b"some data"


def stored(bench: Bench, sha256: str) -> Path:
    return bench.blobs.path(sha256)


def upload_of(bench: Bench, what: str) -> tuple[Path, bytes, Any, str]:
    with bench.db.read() as session:
        if what == "model":
            return stored(bench, session.get_one(Model, bench.model).sha256), MODEL, models, "model"
        row = session.get_one(Dataset, bench.dataset)
    return stored(bench, row.sha256), DATA, datasets, "data.calibration"


@pytest.mark.parametrize("what", ["model", "dataset"])
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_input_fails_the_job_until_the_same_bytes_are_uploaded_again(
    bench: Bench, what: str, damage: Callable[[Path], None]
):
    path, content, kind, where = upload_of(bench, what)
    damage(path)
    became, job = bench.attempt("succeed")
    assert became == "failed"
    assert (job.error["code"], job.error["where"]) == ("file_damaged", where)
    assert "same bytes again, then retry the job" in job.error["hint"]
    assert not path.exists()

    name = {"model": "lenet.onnx", "dataset": "digits.npz"}[what]
    assert bench.upload(kind, name, content) == getattr(bench, what)
    with bench.db.write() as session:
        again = jobs.retry(session, bench.project, job.id).id
    assert answer(bench.place(), "cpu") == 1
    assert bench.job(again).state == "succeeded"


def test_one_damaged_file_of_several_fails_the_job(bench: Bench):
    listed, *parts = (put(bench.blobs, [content]) for content in (b"[...]", b"{}", b"weights"))
    files = [UploadedFile(f"{i}.bin", blob) for i, blob in enumerate(parts)]
    with bench.db.write() as session:
        row, _ = models.create(session, bench.project, "folder", listed, files=files)
        bench.model = row.id
    with bench.db.write() as session:
        ready = Outcome("succeeded", summary={"facts": {"format": "huggingface"}})
        assert finish(session, bench.claim("check"), ready, utcnow())
    flip(stored(bench, parts[1].sha256))
    became, job = bench.attempt("succeed")
    assert (became, job.error["code"], job.error["where"]) == ("failed", "file_damaged", "model")


def test_an_upload_that_is_damaged_before_its_check_is_rejected_and_may_come_again(bench: Bench):
    model = bench.upload(models, "new.onnx", b"another model")
    with bench.db.read() as session:
        path = stored(bench, session.get_one(Model, model).sha256)
    flip(path)
    assert answer(bench.place(), "check") == 1
    with bench.db.read() as session:
        row = session.get_one(Model, model)
    assert (row.state, row.error["code"]) == ("rejected", "file_damaged")
    assert row.error["hint"] == "Upload the same bytes again."
    assert bench.upload(models, "new.onnx", b"another model") != model


@pytest.mark.parametrize(
    ("number", "damage"), [(0, flip), (1, flip), (1, truncate), (0, Path.unlink)]
)
def test_a_damaged_checkpoint_is_dropped_and_the_job_goes_on_from_the_others(
    bench: Bench, number: int, damage: Callable[[Path], None]
):
    place = bench.place()
    job = bench.submit("crash_until_saved", steps=2)
    for _ in range(2):
        assert Attempt(place, bench.claim()).run() == "queued"
    rows = {row.name: row.sha256 for row in bench.rows(Checkpoint, job_id=job)}
    names = sorted(rows)
    assert names == ["round-0.safetensors", "round-1.safetensors"]
    damage(stored(bench, rows[names[number]]))

    # The child writes the one that is missing, and dies once more.
    assert Attempt(place, bench.claim()).run() == "queued"
    assert Attempt(place, bench.claim()).run() == "succeeded"
    assert {row: bench.blobs.exists(rows[row]) for row in rows} == dict.fromkeys(names, True)
    (said,) = (e for e in bench.events(job) if e["type"] == "warning")
    assert (said["code"], said["where"]) == ("file_damaged", names[number])
    assert len(bench.blobs.quarantined()) == (damage is not Path.unlink)


class DamagedBetween(Attempt):
    """An attempt during which the first child's file is damaged before the second gets it."""

    def _begin(self, *, second: bool = False) -> Any:
        if second:
            blobs = self._place.blobs
            for sha256 in blobs.digests(untouched_since=utcnow().replace(year=9999)):
                if blobs.open(sha256).read() == MODEL[::-1]:
                    flip(blobs.path(sha256))
        return super()._begin(second=second)


def test_a_file_damaged_between_the_halves_is_made_again_by_the_next_attempt(bench: Bench):
    place = bench.place()
    job = bench.submit("succeed")
    assert DamagedBetween(place, bench.claim()).run() == "queued"
    assert bench.events(job)[-1]["error"]["code"] == "file_damaged"
    assert Attempt(place, bench.claim()).run() == "succeeded"
