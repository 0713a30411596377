from store import leases
from store.queries import jobs, models
from store.tables import Attempt


def test_a_lost_lease_queues_the_job_again(world) -> None:
    job_id = world.submit()
    world.claimed()
    [reaped] = world.reap(30)
    assert (reaped.job_id, reaped.worker_id, reaped.attempt) == (job_id, "w1", 1)
    assert reaped.state == "queued"
    job = world.job(job_id)
    assert (job.state, job.attempt, job.attempts_without_checkpoint) == ("queued", 1, 1)
    [attempt] = world.rows(Attempt, job_id=job_id)
    assert (attempt.outcome, attempt.error["code"]) == ("lost", "child_crashed")
    assert world.reap(31) == []


def test_the_last_attempt_that_is_lost_fails_the_job_and_names_them(world) -> None:
    job_id = world.submit()
    drained = world.claimed()
    with world.database.write() as session:
        leases.release(session, drained, "drained", world.at(0))
    for number in range(world.settings.max_attempts):
        world.claimed(at=100 * number, worker=f"w{number}")
        world.reap(100 * number + 30)
    job = world.job(job_id)
    assert job.state == "failed"
    assert job.error["code"] == "attempts_exhausted"
    assert "attempts 2, 3 and 4" in job.error["message"]
    assert "w2" in job.error["message"]


def test_a_lost_job_that_shall_be_cancelled_is_cancelled(world) -> None:
    job_id = world.submit()
    world.claimed()
    with world.database.write() as session:
        jobs.request_cancel(session, world.project, job_id)
    assert [r.state for r in world.reap(31)] == ["cancelled"]
    assert world.job(job_id).state == "cancelled"


def test_a_check_that_is_lost_for_good_does_not_stay_checking(world) -> None:
    with world.database.write() as session:
        model, _ = models.create(session, world.project, "b", world.blob("bomb"), world.at(0))
    for number in range(world.settings.max_attempts):
        world.claimed("check", at=100 * number)
        world.reap(100 * number + 30)
    with world.database.read() as session:
        row = models.get(session, world.project, model.id)
    assert (row.state, row.error["code"]) == ("rejected", "attempts_exhausted")
