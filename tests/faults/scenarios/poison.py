"""Jobs that crash, die, eat memory or hang, beside jobs of another project."""

import time

from tests.faults import child
from tests.faults.stage import Stage

SHORT, LONG = 3, 20
_KINDS = {
    "crash": (child.CRASH, ("attempts_exhausted", "child_crashed")),
    "memory": (child.EAT, ("out_of_memory",)),
    "hang": (child.HANG, ("stalled", "attempts_exhausted")),
    "killed": (child.DIE, ("attempts_exhausted", "child_crashed", "out_of_memory")),
}
_OTHERS_WITHIN = 30.0


def run(stage: Stage) -> None:
    service = stage.service
    poisoned: list[tuple[str, str]] = []
    for kind in stage.each(*_KINDS):
        with stage.round(f"{kind}, beside another project's job"):
            number, _ = _KINDS[kind]
            job = service.door.submit(number, salt=stage.done, states=("failed",))
            poisoned.append((kind, job))
            service.rest(0.3)
            began = time.monotonic()
            service.ends(service.other.submit(steps=2, ms=50, salt=stage.done), _OTHERS_WITHIN)
            stage.recovered(began)
    for kind, job in poisoned:
        ended = service.ends(job, 150)
        code = (ended.error or {}).get("code")
        stage.hold(code in _KINDS[kind][1], f"{kind} ended with {code}: {ended.error}")
        if not stage.long:
            stage.note(f"{kind}: {code}, {ended.attempt} attempts")
        stage.hold(ended.attempt <= 3, f"{kind} was tried {ended.attempt} times")
