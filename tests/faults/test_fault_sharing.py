"""Two projects and one worker: who has little to do does not wait for who has much."""

import os

from bench import Bench, until

from store.queries import jobs
from store.tables import Attempt

MANY = 5_000 if os.environ.get("SECATEUR_FAULTS") == "long" else 20


def submit(bench: Bench, count: int, priority: int = 0) -> list[str]:
    with bench.db.write() as session:
        return [
            jobs.create(
                session,
                bench.project,
                model_id=bench.model,
                data={"calibration": bench.dataset},
                spec={"do": "succeed"},
                priority=priority,
            )[0].id
            for _ in range(count)
        ]


def test_the_only_job_of_a_project_waits_at_most_for_the_running_one(service: Bench):
    many = set(submit(service, MANY, priority=9))
    service.control()
    service.worker(queues="secateur.cpu")  # the checks are the bench's
    until(lambda: len(service.rows(Attempt, outcome="succeeded")) >= 2, 90, "the first jobs")

    service.fill()  # another project, with uploads of its own
    [only] = submit(service, 1)
    submitted = service.job(only).created_at
    until(service.state(only, "succeeded", "failed"), 60)
    [attempt] = service.rows(Attempt, job_id=only)

    def began_between(row: Attempt) -> bool:
        return row.job_id in many and submitted < row.started_at <= attempt.started_at

    assert sum(map(began_between, service.rows(Attempt))) <= 1
    assert any(job.state == "queued" for job in map(service.job, many))
