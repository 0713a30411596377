"""fsync and rename fail with EIO: what was not stored is not answered for."""

import errno
import time

from tests.faults.files import network
from tests.faults.shim import RENAME, SYNC
from tests.faults.stage import SkippedError, Stage

SHORT, LONG = 2, 8


def run(stage: Stage) -> None:
    service = stage.service
    if service.shim is None:
        raise SkippedError("no C compiler to build what fails calls")
    places = {"blobs": service.settings.blob_dir}
    if service.database.name == "sqlite":
        places["database"] = service.settings.data_dir / "secateur.db"
    for kind in stage.each(*places):
        with stage.round(f"EIO on {kind}"):
            job = service.door.submit(ms=300, salt=stage.random.randrange(1000))
            service.runs(job)
            with service.shim.armed(errno.EIO, SYNC | RENAME, places[kind]):
                _during(stage, kind, time.monotonic() + (6.0 if stage.long else 2.0))
            if service.shim.hits == 0:
                stage.note(f"nothing was synced in {kind}")
            began = time.monotonic()
            service.ends(job)
            content = network(9000 + stage.done)
            found = service.door.upload("models", f"eio{stage.done}.onnx", content)
            checked = service.door.checked(f"/v1/models/{found}")
            stage.hold(checked["state"] == "ready", f"after EIO an upload is {checked['state']}")
            stage.recovered(began)


def _during(stage: Stage, kind: str, until: float) -> None:
    service, door = stage.service, stage.service.door
    while time.monotonic() < until:
        # The same bytes again and again: none may be taken for stored.
        content = network(9000 + stage.done)
        answer = door.ask("POST", f"/v1/models?name=eio{stage.done}.onnx", content=content)
        status = None if answer is None else answer.status_code
        stage.hold(status not in (200, 201), f"{kind} were not synced, and {status} was answered")
        service.rest(0.2)
