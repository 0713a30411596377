"""Processes are killed in mid-job; jobs end well all the same, and nothing is left running."""

import os
import signal
from pathlib import Path

from bench import Bench, alive, until

from store import leases
from store.claims import Claim, Outcome
from store.clock import utcnow


def children_of(pid: int) -> list[int]:
    """Pool processes of a Celery worker, or children of a pool process."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


def running(service: Bench, job: str) -> int:
    """The pid of the job's child, once it has said it."""
    return int(until(lambda: service.progress(job), 40, "progress"))


def test_a_child_killed_in_mid_job_is_replaced_and_the_job_goes_on(service: Bench):
    service.control()
    service.worker()
    job = service.submit("stand_once")
    os.kill(running(service, job), signal.SIGKILL)
    assert until(service.state(job, "succeeded", "failed"), 20).state == "succeeded"
    assert service.job(job).attempt == 2
    assert service.attempts(job) == ["lost", "succeeded"]


def test_a_killed_pool_process_takes_its_child_along_and_the_reaper_gives_the_job_to_another(
    service: Bench,
):
    service.control()
    worker = service.worker()
    job = service.submit("stand_once")
    child = running(service, job)
    held = service.job(job)
    (pool,) = (p for p in children_of(worker.pid) if child in children_of(p))
    os.kill(pool, signal.SIGKILL)
    until(lambda: not alive(child), 5, "the child's death")
    assert until(service.state(job, "succeeded", "failed"), 30).state == "succeeded"
    assert service.job(job).token == held.token + 1

    # What the dead process held is worth nothing any more.
    old = Claim(
        job_id=job, project_id=held.project_id, kind="prune", klass="cpu", name="", attempt=1,
        token=held.token, worker_id="dead", lease_seconds=3.0, spec={},
    )  # fmt: skip
    with service.db.write() as session:
        assert not leases.renew(session, old, utcnow()).valid
        assert not leases.finish(session, old, Outcome("cancelled"), utcnow())
    assert service.job(job).state == "succeeded"


def test_a_killed_worker_leaves_no_process_and_its_successor_cleans_up(service: Bench):
    service.control()
    worker = service.worker()
    job = service.submit("stand_once")
    child = running(service, job)
    houses = set(service.settings.slots_dir.glob("*-*"))
    pools = children_of(worker.pid)
    worker.kill()
    worker.wait()
    until(lambda: not any(alive(p) for p in [*pools, child]), 5, "the death of all")
    service.worker()
    assert until(service.state(job, "succeeded", "failed"), 30).state == "succeeded"
    assert not houses & set(service.settings.slots_dir.glob("*-*"))


def test_a_worker_told_to_stop_gives_its_job_back_and_exits_at_once(service: Bench):
    service.control()
    worker = service.worker()
    job = service.submit("stand_once")
    child = running(service, job)
    worker.terminate()
    assert worker.wait(8) == 0
    assert not alive(child)
    assert service.job(job).state == "queued"
    assert service.attempts(job) == ["drained"]
    assert service.job(job).attempts_without_checkpoint == 0
    assert not list(service.settings.slots_dir.glob("*-*"))
    service.worker()
    until(service.state(job, "succeeded"), 30)


def test_control_stops_at_once_and_another_takes_over(service: Bench):
    first = service.control()
    service.worker()
    until(service.state(service.submit("succeed"), "succeeded"), 40)
    second = service.control()
    first.terminate()
    assert first.wait(5) == 0
    until(service.state(service.submit("succeed"), "succeeded"), 20)
    second.kill()
    second.wait()
    service.control()  # waits until the dead one's lead has run out
    until(service.state(service.submit("succeed"), "succeeded"), 20)
