"""Another process holds the database's lock; PostgreSQL's server stands still, or dies."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from tests.faults.files import network
from tests.faults.stage import Stage

SHORT, LONG = 1, 8
_ANSWERS_WITHIN = 30.0


def run(stage: Stage) -> None:
    service = stage.service
    kinds: dict[str, Callable[[], AbstractContextManager[None]]] = {
        "locked": lambda: service.database.locked(service.settings.database_url),
    }
    if service.database.name == "postgresql":
        kinds["paused"] = lambda: service.stopped(service.database.processes())
        kinds["restarted"] = lambda: service.database.restart() or nullcontext()
    for kind in stage.each(*kinds):
        seconds = stage.random.uniform(8, 40) if stage.long else 6.0
        with stage.round(f"database {kind} for {seconds:.0f} s"):
            job = service.door.submit(ms=300, salt=stage.random.randrange(1000))
            service.runs(job)
            with kinds[kind]():
                _during(stage, kind, time.monotonic() + seconds)
            began = time.monotonic()
            service.ends(job)
            after = service.door.submit(steps=1, ms=20, salt=stage.random.randrange(1000))
            service.ends(after)
            stage.recovered(began)


def _during(stage: Stage, kind: str, until: float) -> None:
    """Ask for things that write and for things that read; each answer is bounded in time."""
    door = stage.service.door
    number = 0
    while time.monotonic() < until:
        number += 1
        content = network(stage.random.randrange(10, 10**6))
        for method, path, rest in (
            ("GET", "/healthz", {}),
            ("POST", f"/v1/models?name=l{number}.onnx", {"content": content}),
            ("POST", "/v1/jobs", {"json": {"model": "mod_x", "data": {"calibration": "x"}}}),
        ):
            began = time.monotonic()
            answer = door.ask(method, path, **rest)
            if answer is not None and answer.status_code == 201:
                door.uploads[f"/v1/models/{answer.json()['id']}"] = content
            took = time.monotonic() - began
            limit = 1.0 if path == "/healthz" else _ANSWERS_WITHIN
            stage.hold(took < limit, f"{method} {path} took {took:.1f} s, the database {kind}")
        # Where the database is back at once, each upload is one more check.
        stage.service.rest(1.0)
