"""Workers stand still past their lease, and go on when another one has their job."""

import time

from tests.faults.service import FINAL, LEASE
from tests.faults.stage import Stage

SHORT, LONG = 2, 50


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
                service.until(
                    lambda job=job, token=before.token: _taken(service.job(job), token),
                    4 * LEASE,
                    "another worker's claim",
                )
                if stage.random.random() < 0.5:
                    service.ends(job)
            ended = service.ends(job)
            stage.recovered(began)
            if before.state == "running":
                stage.hold(ended.token > before.token, "the stopped worker ended the job")


def _taken(job, token: int) -> bool:
    """Whether somebody else holds the job, or it is over."""
    return job.state in FINAL or (job.state == "running" and job.token > token)
