"""Workers, control and API are told to stop in mid-job: they do at once, and nothing is lost."""

import signal
import time

from tests.faults.stage import Stage

SHORT, LONG = 2, 20
_STOPS_WITHIN = 8.0


def run(stage: Stage) -> None:
    service = stage.service
    for kind in stage.each("jobs", "api", "control", "jobs", "jobs", "checks"):
        with stage.round(f"{kind} drained"):
            job = service.door.submit(ms=stage.random.randint(100, 300))
            service.runs(job)
            service.rest(stage.random.uniform(0, 1.0))
            if kind in ("jobs", "checks"):
                service.up(kind)
            children = service.children(job) if kind == "jobs" else []
            began = time.monotonic()
            service.parts[kind].signal(signal.SIGTERM)
            code = service.gone(kind)
            took = time.monotonic() - began
            stage.hold(took < _STOPS_WITHIN, f"{kind} took {took:.1f} s to stop")
            stage.hold(code == 0 or kind == "api", f"{kind} exited with {code}")
            left = [c for c in children if c.is_running() and c.status() != "zombie"]
            stage.hold(not left, f"{len(left)} children outlived the drain")
            ended = service.ends(job)
            stage.recovered(began)
            outcomes = [a.outcome for a in ended.attempts]
            stage.hold("lost" not in outcomes, f"a drain of {kind} lost an attempt: {outcomes}")
