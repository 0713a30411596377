"""Workers stand still past their lease, and go on when another one has their job."""

import time

import sqlalchemy as sa

from store.tables import Job
from tests.faults.service import FINAL, LEASE, NotHeldError, Service
from tests.faults.stage import Stage

SHORT, LONG = 1, 50


def run(stage: Stage) -> None:
    service = stage.service
    for kind in stage.each("with its child", "alone"):
        with stage.round(f"pool process stopped {kind}"):
            door = service.door
            job = door.submit(ms=stage.random.randint(300, 600), salt=stage.random.randrange(1000))
            service.runs(job)
            service.rest(stage.random.uniform(0, 1.5))
            holder, before = service.holder(job), service.job(job)
            if holder is None:
                continue
            processes = [holder]
            if kind == "with its child":
                processes += holder.children()
            began = time.monotonic()
            with service.stopped(processes):
                try:
                    service.until(
                        lambda job=job, token=before.token: _taken(service.job(job), token),
                        4 * LEASE,
                        "another worker's claim",
                    )
                except NotHeldError:
                    # Stopped in mid-transaction it keeps others out until it goes on, or is gone.
                    if not _locks_out(service, job):
                        raise
                    stage.note("one was stopped inside a transaction")
                    continue
                if stage.random.random() < 0.5:
                    service.ends(job)
            ended = service.ends(job)
            stage.recovered(began)
            if before.state == "running":
                stage.hold(ended.token > before.token, "the stopped worker ended the job")


def _locks_out(service: Service, job: str) -> bool:
    """Whether nobody can write the job's row."""
    query = sa.select(Job.id).where(Job.id == job).with_for_update(nowait=True)
    try:
        with service.db.write() as session:
            session.execute(query)
    except sa.exc.DBAPIError:
        return True
    return False


def _taken(job: Job, token: int) -> bool:
    """Whether somebody else holds the job, or it is over."""
    return job.state in FINAL or (job.state == "running" and job.token > token)
