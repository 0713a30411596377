"""One long job is preempted again and again, also before it has a new checkpoint."""

import signal
import time

from tests.faults.stage import Stage

SHORT, LONG = 2, 10


def run(stage: Stage) -> None:
    service = stage.service
    real = stage.long
    if real:
        service.run_children("real")
        service.ends(service.door.submit_real(1))
        job = service.door.submit_real(1)
    else:
        job = service.door.submit(steps=8, ms=400)
    for number in range(stage.rounds):
        with stage.round(f"preemption {number + 1}"):
            if service.runs(job).state != "running":
                stage.note(f"the job was over after {number}")
                break
            # Every second time at once: nothing new is stored by then.
            service.rest(stage.random.uniform(0.1, 1.0) if number % 2 else 0.0)
            began = time.monotonic()
            service.parts["jobs"].signal(signal.SIGTERM)
            stage.hold(service.gone("jobs") == 0, "the worker did not exit with 0")
            stage.recovered(began)
    ended = service.ends(job, 120)
    outcomes = [a.outcome for a in ended.attempts]
    stage.hold(set(outcomes[:-1]) <= {"drained"}, f"preempted attempts ended {outcomes}")
    stage.note(f"{outcomes.count('drained')} attempts drained")
    service.run_children("quick")
