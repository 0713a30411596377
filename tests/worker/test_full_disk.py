"""A disk without room puts a job off: it loses no attempt, and goes on when there is room."""

import errno

import pytest
from bench import Bench

from pruning.errors import SecateurError
from store.queries import datasets, models
from tests.store.test_storage_failures_told import largest_file
from worker.answer import answer
from worker.child import failure
from worker.supervisor import Attempt


def large(bench: Bench) -> None:
    """The job's model is larger than what may be written."""
    model = bench.upload(models, "large.onnx", bytes(3 << 20))
    assert answer(bench.place(), "check") == 1
    bench.model = model


def put_off(bench: Bench, job: str) -> None:
    row = bench.job(job)
    assert (row.state, row.attempts_without_checkpoint, row.put_offs) == ("queued", 0, 1)
    assert bench.attempts(job) == ["put_off"]
    assert bench.events(job)[-1]["error"]["code"] == "storage_full"


def test_inputs_that_find_no_room_in_the_slot_put_the_job_off(bench: Bench):
    bench.settings.put_off_first_seconds = 0.01
    large(bench)
    place = bench.place()
    job = bench.submit("succeed")
    claim = bench.claim()
    with largest_file(1 << 20):
        assert Attempt(place, claim).run() == "queued"
    put_off(bench, job)
    assert not list(bench.blobs._unfinished.iterdir())
    assert not list(place.house.folder.glob("slot-*"))
    while bench.job(job).state == "queued":
        answer(place, "cpu")
    assert bench.job(job).state == "succeeded"


def test_outputs_that_find_no_room_among_the_blobs_put_the_job_off(bench: Bench):
    job = bench.submit("write", bytes=3 << 20)
    place, claim = bench.place(), bench.claim()
    attempt = Attempt(place, claim)
    with largest_file(1 << 20):
        # The child's own limit was set when it was started.
        assert attempt.run() == "queued"
    put_off(bench, job)


def test_a_child_that_finds_no_room_puts_its_job_off(bench: Bench):
    became, job = bench.attempt("find_no_room")
    assert became == "queued"
    put_off(bench, job.id)


def test_a_job_that_is_put_off_for_too_long_fails_with_that_code(bench: Bench):
    became, job = bench.attempt("find_no_room", bench.place(put_off_total_seconds=0.0))
    assert (became, job.error["code"]) == ("failed", "storage_full")


def test_a_check_is_put_off_too(bench: Bench):
    bench.settings.put_off_first_seconds = 0.01
    bench.upload(datasets, "large.npz", bytes(3 << 20))
    place, claim = bench.place(), bench.claim("check")
    with largest_file(1 << 20):
        assert Attempt(place, claim).run() == "queued"
    while bench.job(claim.job_id).state == "queued":
        answer(place, "check")
    assert bench.job(claim.job_id).state == "succeeded"


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        RuntimeError("PytorchStreamWriter failed: No space left on device"),
    ],
)
def test_a_disk_without_room_is_told_by_the_child(error: Exception):
    assert failure(error).code == "storage_full"
    assert failure(OSError(errno.ENOENT, "")).code == "internal_error"
    assert failure(SecateurError("scope_empty", "")).code == "scope_empty"
