"""The disk is full: uploads and jobs are told so, work waits, and goes on when there is room."""

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.faults.files import network
from tests.faults.shim import CREATE, WRITE
from tests.faults.stage import SkippedError, Stage

SHORT, LONG = 1, 6


def run(stage: Stage) -> None:
    service = stage.service
    kinds = []
    if service.small_disk:
        kinds.append("file system full")
    if service.shim is not None:
        kinds.append("no space for blobs")
    if not kinds:
        raise SkippedError("neither a small file system can be mounted nor a shim built")
    for kind in stage.each(*kinds):
        with stage.round(kind):
            jobs = [service.door.submit(ms=300, salt=10 * stage.done + n) for n in range(3)]
            service.runs(jobs[0])
            service.rest(stage.random.uniform(0, 0.8))
            with _full(stage, kind):
                _during(stage, time.monotonic() + (12.0 if stage.long else 7.0))
            began = time.monotonic()
            for job in jobs:
                ended = service.ends(job, 60)
                outcomes = [a.outcome for a in ended.attempts]
                stage.hold("lost" not in outcomes, f"{kind} burnt attempts: {outcomes}")
            service.door.upload("models", f"after-{stage.done}.onnx", network(7000 + stage.done))
            stage.recovered(began)


@contextmanager
def _full(stage: Stage, kind: str) -> Iterator[None]:
    service = stage.service
    if kind == "no space for blobs":
        assert service.shim is not None
        with service.shim.armed(errno.ENOSPC, WRITE | CREATE, service.settings.blob_dir):
            yield
        return
    filler = service.settings.data_dir / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            with suppress(OSError):
                while True:
                    file.write(bytes(size))
        try:
            yield
        finally:
            os.truncate(filler, 0)
    filler.unlink()


def _during(stage: Stage, until: float) -> None:
    door, number = stage.service.door, 0
    seen = set()
    while time.monotonic() < until:
        number += 1
        stage.service.tend()
        content = network(8000 + 100 * stage.done + number) + bytes(2_000_000)
        answer = door.ask("POST", f"/v1/models?name=full{number}.onnx", content=content)
        seen.add(None if answer is None else answer.status_code)
        stage.hold(door.ask("GET", "/healthz") is not None, "the API died of a full disk")
        stage.service.rest(0.2)
    stage.hold(seen == {507}, f"uploads to a full disk were answered {sorted(map(str, seen))}")
