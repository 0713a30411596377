"""Load for an hour, a fault every half minute; memory and descriptors stay as they were.

What ends an API, a control process or a worker's main process comes in the first fifth only: the
figures are of processes that live through all the rest.
"""

import errno
import secrets
import signal
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import psutil
import redis

from store.clock import utcnow
from store.sweep import REFERRERS
from tests.faults import child
from tests.faults.files import network
from tests.faults.service import FINAL
from tests.faults.shim import CREATE, SYNC, WRITE
from tests.faults.stage import Stage

SHORT, LONG = 1, 1
SETTINGS = {"wall_seconds": 60.0}
WATCHED = ("api", "control", "checks", "jobs")
_WARM_UP = 0.2
_GROWTH = 1.05
_PENDING, _KEPT = 6, 12


@dataclass
class Samples:
    """Resident bytes and descriptors of one process, one after the other."""

    memory: list[int] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)

    def take(self, process: psutil.Process) -> None:
        self.memory.append(process.memory_info().rss)
        self.descriptors.append(process.num_fds())


def run(stage: Stage) -> None:
    service, began = stage.service, time.monotonic()
    every = min(30.0, stage.seconds / 20)
    warm = began + _WARM_UP * stage.seconds
    load = Load(stage)
    samples = {name: Samples() for name in WATCHED}
    faults = _faults(stage)
    harsh = _restarts(stage)
    stage.rounds = int(stage.seconds / every) - 1
    due, look = began + every, began
    while (now := time.monotonic()) < began + stage.seconds:
        service.tend()
        load.turn()
        if now > look and now > warm:
            look = now + max(0.5, every / 10)
            for name in WATCHED:
                with suppress(psutil.Error):
                    samples[name].take(service.main(name))
        if now > due:
            due = now + every
            known = faults | (harsh if now < warm - every else {})
            kind = stage.random.choice(list(known))
            with stage.round(kind):
                known[kind]()
    for name in WATCHED:
        _flat(stage, name, samples[name])
    _swept(stage)
    stage.note(f"{load.jobs} jobs, {load.uploads} uploads")


class Load:
    """A client that always has something to ask for, and takes away what it no longer needs."""

    def __init__(self, stage: Stage) -> None:
        self._stage, self._door = stage, stage.service.door
        self._models: list[str] = []
        self.jobs = self.uploads = 0
        self._next = 0.0

    def turn(self) -> None:
        """One step; none where the last one was just now."""
        if time.monotonic() < self._next:
            self._stage.service.rest(0.05)
            return
        self._next = time.monotonic() + 0.4
        door, chance = self._door, self._stage.random
        with suppress(AssertionError):
            answer = door.ask("GET", "/v1/jobs?limit=50")
            listed = answer.json()["data"] if answer is not None and answer.is_success else []
            pending = [job for job in listed if job["state"] not in FINAL]
            if len(pending) < _PENDING:
                kind = chance.choice((child.CHAIN, child.CHAIN, child.LARGE))
                door.submit(kind, steps=3, ms=200, salt=self.jobs % 1000, seconds=20)
                self.jobs += 1
            for job in [j for j in listed if j["state"] == "succeeded"][:1]:
                door.ask("GET", f"/v1/jobs/{job['id']}/artifacts/small.onnx")
            for job in [j for j in listed if j["state"] in FINAL][_KEPT:]:
                self._forget(job["id"])
            if chance.random() < 0.3:
                self._upload()

    def _forget(self, job: str) -> None:
        answer = self._door.ask("DELETE", f"/v1/jobs/{job}")
        if answer is not None and answer.status_code in (204, 404):
            self._door.promises = [p for p in self._door.promises if p.job != job]

    def _upload(self) -> None:
        name = f"s{secrets.token_hex(4)}.onnx"
        content = network(int.from_bytes(secrets.token_bytes(4), "big"))
        self._models.append(self._door.upload("models", name, content, seconds=20))
        self.uploads += 1
        if len(self._models) > _KEPT:
            model = self._models.pop(0)
            answer = self._door.ask("DELETE", f"/v1/models/{model}")
            if answer is not None and answer.status_code in (204, 404):
                self._door.uploads.pop(f"/v1/models/{model}", None)
            else:
                self._models.append(model)


def _faults(stage: Stage) -> dict[str, Callable[[], object]]:
    service, chance = stage.service, stage.random
    blobs = service.settings.blob_dir

    def pool() -> list[psutil.Process]:
        return service.pools()[:1]

    def broken(error: int, calls: int) -> Callable[[], None]:
        def during() -> None:
            assert service.shim is not None
            with service.shim.armed(error, calls, blobs):
                service.rest(2.0)

        return during

    def still(processes: Callable[[], list[psutil.Process]], seconds: float) -> Callable[[], None]:
        def during() -> None:
            with service.stopped(processes()):
                service.rest(seconds)

        return during

    def locked() -> None:
        with service.database.locked(service.settings.database_url):
            time.sleep(chance.uniform(1, 8))

    def emptied() -> None:
        with redis.Redis.from_url(service.settings.redis_url) as client:
            client.flushall()

    def stepped() -> None:
        assert service.shim is not None
        # Forward first: after a step below what files say, nothing of them is old for as long.
        service.shim.clock = 0.0 if service.shim.clock else 3600.0

    found: dict[str, Callable[[], object]] = {
        "child killed": lambda: service.signal(
            [c for p in service.pools() for c in p.children()], signal.SIGKILL
        ),
        "pool process killed": lambda: service.signal(pool(), signal.SIGKILL),
        "pool process stopped": still(pool, 5.0),
        "broker emptied": emptied,
        "broker killed": lambda: service.kill("valkey"),
        "broker paused": still(lambda: [service.main("valkey")], 4.0),
        "database locked": locked,
        "a job that crashes": lambda: service.other.submit(child.CRASH, states=("failed",)),
        "a job that eats memory": lambda: service.other.submit(child.EAT, states=("failed",)),
    }
    if service.shim is not None:
        found["no space"] = broken(errno.ENOSPC, WRITE | CREATE)
        found["EIO on sync"] = broken(errno.EIO, SYNC)
        found["clock stepped"] = stepped
    if service.database.name == "postgresql":
        found["database paused"] = still(service.database.processes, 4.0)
        found["database restarted"] = service.database.restart
    return found


def _restarts(stage: Stage) -> dict[str, Callable[[], object]]:
    service = stage.service

    def drained() -> None:
        service.parts["jobs"].signal(signal.SIGTERM)
        service.gone("jobs")

    return {
        "worker drained": drained,
        "worker killed": lambda: service.kill("jobs"),
        "control killed": lambda: service.kill("control"),
        "API killed": lambda: service.kill("api"),
    }


def _flat(stage: Stage, name: str, samples: Samples) -> None:
    for what, values in (("memory", samples.memory), ("descriptors", samples.descriptors)):
        quarter = len(values) // 4
        if quarter == 0:
            stage.hold(False, f"too few samples of {name}")
            return
        first, last = (statistics.median(v) for v in (values[:quarter], values[-quarter:]))
        stage.note(f"{name} {what} x {last / first:.3f}")
        # One more descriptor is no leak.
        flat = last <= first * _GROWTH or (what == "descriptors" and last - first <= 1)
        stage.hold(flat, f"{what} of {name} went from {first:,.0f} to {last:,.0f}")


def _swept(stage: Stage) -> None:
    """The service's own sweep has taken away what nobody refers to, after its time."""
    service = stage.service
    named = {row.sha256 for table in REFERRERS for row in service.rows(table)}
    limit = utcnow().timestamp() - 1.5 * service.settings.blob_grace_seconds
    files = service.settings.blob_dir.glob("[0-9a-f][0-9a-f]/*")
    old = [p.name for p in files if p.stem not in named and p.stat().st_mtime < limit]
    stage.hold(not old, f"{len(old)} blobs without a row were not swept")
