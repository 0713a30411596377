"""Jobs that the service could not work on wait, longer each time, and lose no attempt by it."""

from datetime import timedelta

import pytest

from store import leases, outbox
from store.backoff import Backoff
from store.queries import events, jobs
from store.settings import Settings
from store.tables import Attempt, JobEvent, Outbox

FULL = {"code": "storage_full", "message": "The disk of the blobs is full."}


def put_off(world, claim, at: float, **changes):
    settings = world.settings.model_copy(update=changes)
    with world.database.write() as session:
        return leases.put_off(session, claim, FULL, world.at(at), settings)


def waiting(world, job_id: str, at: float):
    with world.database.read() as session:
        return events.waiting(session, world.project, job_id, world.at(at))


def rung_for(world, at: float, longer_than: float = 15) -> dict[str, int]:
    with world.database.read() as session:
        return outbox.waiting(session, world.at(at), timedelta(seconds=longer_than))


def test_a_job_that_is_put_off_waits_and_loses_no_attempt(world) -> None:
    job_id = world.submit()
    assert put_off(world, world.claimed(), at=100) == "queued"
    job = world.job(job_id)
    assert (job.state, job.attempts_without_checkpoint, job.put_offs) == ("queued", 0, 1)
    assert (job.worker_id, job.not_before) == (None, world.at(105))
    [attempt] = world.rows(Attempt, job_id=job_id)
    assert (attempt.outcome, attempt.error) == ("put_off", FULL)
    assert world.rows(JobEvent, job_id=job_id)[-1].body["error"] == FULL
    assert world.claim(at=104.9) is None
    assert world.claimed(at=105).attempt == 2
    assert world.job(job_id).not_before is None


def test_each_wait_in_a_row_is_twice_as_long_up_to_the_longest(world) -> None:
    job_id, at, waits = world.submit(), 0.0, []
    for _ in range(9):
        put_off(world, world.claimed(at=at), at)
        waits.append((world.job(job_id).not_before - world.at(at)).total_seconds())
        at += waits[-1]
    assert waits == [5, 10, 20, 40, 80, 160, 300, 300, 300]


def test_a_job_that_waited_too_long_in_total_fails_with_the_reason(world) -> None:
    job_id, states, at = world.submit(), [], 0.0
    while (claim := world.claim(at=at)) is not None:
        states.append(put_off(world, claim, at, put_off_total_seconds=40))
        at += 60
    assert states == ["queued", "queued", "queued", "failed"]
    job = world.job(job_id)
    assert (job.state, job.error) == ("failed", FULL)


def test_a_new_checkpoint_begins_the_row_anew(world) -> None:
    job_id = world.submit()
    put_off(world, world.claimed(), at=0)
    claim = world.claimed(at=10)
    with world.database.write() as session:
        saved = {"round-1": world.blob("r")}
        leases.report(session, claim, [], world.at(11), checkpoints=saved)
    put_off(world, claim, at=12)
    job = world.job(job_id)
    assert (job.put_offs, job.not_before) == (1, world.at(17))


def test_a_stale_claim_puts_nothing_off_and_a_cancelled_job_ends(world) -> None:
    job_id = world.submit()
    claim = world.claimed()
    with world.database.write() as session:
        jobs.request_cancel(session, world.project, job_id, world.at(1))
    assert put_off(world, claim, at=2) == "cancelled"
    before = world.job(job_id).put_offs
    assert put_off(world, claim, at=3) is None
    assert world.job(job_id).put_offs == before


def test_others_go_first_and_the_doorbell_rings_when_the_wait_is_over(world) -> None:
    first = world.submit()
    put_off(world, world.claimed(at=1), at=1)
    second = world.submit(now=world.at(2))
    assert rung_for(world, at=5, longer_than=0) == {"cpu": 1}
    assert world.claimed(at=3).job_id == second
    assert world.claim(at=4) is None
    assert rung_for(world, at=5) == {}
    # Queued for a moment only, but nobody rang for it.
    assert rung_for(world, at=6.5) == {"cpu": 1}
    assert world.claimed(at=6.5).job_id == first


def test_putting_off_rings_no_bell(world) -> None:
    world.submit()
    claim = world.claimed()
    before = len(world.rows(Outbox))
    put_off(world, claim, at=1)
    assert len(world.rows(Outbox)) == before


def test_a_stream_says_why_a_job_waits_and_until_when(world) -> None:
    job_id = world.submit()
    assert waiting(world, job_id, at=1).put_off is None
    put_off(world, world.claimed(at=1), at=1)
    event = waiting(world, job_id, at=2)
    assert (event.put_off, event.retry_seconds, event.waited_seconds) == (FULL, 4.0, 1.0)
    event = waiting(world, job_id, at=7)
    assert (event.put_off, event.retry_seconds) == (None, None)


@pytest.mark.parametrize("step", [-3600, -120, 120, 3600])
def test_a_clock_that_is_set_holds_no_job_back_for_longer_than_twice_its_wait(world, step) -> None:
    world.submit()
    put_off(world, world.claimed(at=10_000), at=10_000)
    waited = 0.0
    while world.claim(at=10_000 + step + waited) is None:
        waited += 1
    assert waited <= 10
    # And one that was queued in what is now the future is rung for.
    world.submit(now=world.at(20_000))
    assert rung_for(world, at=20_000 - 120) == {"cpu": 1}


def test_waits_of_any_number_are_computed_at_once() -> None:
    waits = Backoff.of(Settings())
    assert waits.wait(10**6) == 300
    assert waits.waited(8) == 5 + 10 + 20 + 40 + 80 + 160 + 300 + 300
    assert waits.waited(10**9) == pytest.approx(3e11, rel=1e-3)
