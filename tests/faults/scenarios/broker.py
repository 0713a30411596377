"""The broker is killed, emptied, stopped; jobs that wait, and those that run, end all the same."""

import signal
import time

import redis

from tests.faults.stage import Stage

SHORT, LONG = 3, 12


def run(stage: Stage) -> None:
    service = stage.service
    jobs = 30 if stage.long else 6
    for kind in stage.each("emptied", "killed", "paused"):
        with stage.round(f"broker {kind}, {jobs} jobs"):
            promised = [
                service.door.submit(steps=2, ms=stage.random.randint(10, 80), salt=number)
                for number in range(jobs // 2)
            ]
            service.rest(stage.random.uniform(0, 0.5))
            began = time.monotonic()
            _disturb(stage, kind, lambda found=promised: _more(stage, found, jobs))
            for job in promised:
                service.ends(job, 90)
            stage.recovered(began)
            lost = [a for job in promised for a in service.job(job).attempts if a.outcome == "lost"]
            stage.hold(not lost, f"{len(lost)} attempts were lost by a broker {kind}")


def _more(stage: Stage, promised: list[str], jobs: int) -> None:
    """Submit while the broker is away: the API never talks to it."""
    for number in range(jobs - len(promised)):
        salt = 500 + number
        promised.append(stage.service.door.submit(steps=1, ms=20, salt=salt, seconds=5))


def _disturb(stage: Stage, kind: str, meanwhile) -> None:
    service = stage.service
    away = stage.random.uniform(2, 8) if stage.long else 1.5
    if kind == "emptied":
        meanwhile()
        with redis.Redis.from_url(service.settings.redis_url) as client:
            client.flushall()
        return
    if kind == "killed":
        service.away.add("valkey")
        service.parts["valkey"].signal(signal.SIGKILL)
        meanwhile()
        service.rest(away)
        service.away.clear()
        return
    with service.stopped([service.main("valkey")]):
        meanwhile()
        service.rest(away)
