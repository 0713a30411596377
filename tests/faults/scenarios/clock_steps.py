"""The wall clock steps by an hour and by two minutes, both ways, alone and beside a death."""

import signal
import time

from tests.faults.stage import SkippedError, Stage

SHORT, LONG = 3, 24
_STEPS = {"+1 h": 3600.0, "-1 h": -3600.0, "+2 min": 120.0, "-2 min": -120.0}
_WELL_WITHIN = 25.0


def run(stage: Stage) -> None:
    service = stage.service
    if service.shim is None:
        raise SkippedError("no C compiler to build what steps the clock")
    shim = service.shim
    kinds = [f"{step}{death}" for death in (" and a death", "") for step in _STEPS]
    if not stage.long:
        kinds = ["-1 h and a death", "+1 h", "-2 min"]
    for kind in stage.each(*kinds):
        with stage.round(kind):
            job = service.door.submit(ms=stage.random.randint(200, 400), salt=stage.done)
            service.runs(job)
            service.rest(stage.random.uniform(0, 1.0))
            held = service.job(job)
            began = time.monotonic()
            shim.clock += _STEPS[kind.removesuffix(" and a death")]
            died = kind.endswith("death") and held.state == "running"
            if died and (holder := service.holder(job)) is not None:
                service.signal(holder, signal.SIGKILL)
            ended = service.ends(job, _WELL_WITHIN)
            # Doorbells, claims and checks go on by the stepped clock.
            after = service.door.submit(steps=1, ms=20, salt=stage.done)
            service.ends(after, _WELL_WITHIN)
            stage.recovered(began)
            outcomes = [a.outcome for a in ended.attempts]
            if not died:
                stage.hold("lost" not in outcomes, f"{kind} lost an attempt: {outcomes}")
