"""SIGKILL at random points, those at which checkpoints and uploads are written included."""

import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from tests.faults.files import network
from tests.faults.service import FINAL, NotHeldError
from tests.faults.shim import EVERY, KILL_AFTER, KILL_BEFORE
from tests.faults.stage import Stage

SHORT, LONG = 6, 100
# System calls with which one checkpoint, or one upload, is stored: create, write, sync, rename,
# sync of the folder, and what the next one adds.
_POINTS = 9
_DIE_WITHIN = 5.0


def run(stage: Stage) -> None:
    service = stage.service
    real_from = stage.rounds - (stage.rounds // 4 if stage.long else 1)
    if stage.long:
        service.run_children("real")
        service.ends(service.door.submit_real())  # undisturbed: what the others are held to
        service.run_children("quick")
    kinds = {
        "child": _child,
        "pool process": _pool,
        "pool process storing": _pool_storing,
        "child writing": _child_writing,
        "worker": _worker,
        "api storing": _api_storing,
        "control": _part("control"),
        "check": _check,
        "broker": _part("valkey"),
        "api": _part("api"),
        "database": _database,
    }
    if service.database.name == "sqlite":
        del kinds["database"]
    if service.shim is None:
        del kinds["pool process storing"], kinds["api storing"]
    hit = 0
    for number, kind in enumerate(stage.each(*kinds)):
        if stage.long and number == real_from:
            service.run_children("real")
        real = stage.long and number >= real_from
        with stage.round(f"{kind} killed{' (real child)' if real else ''}"):
            job = _submitted(stage, real)
            service.runs(job)
            killed = kinds[kind](stage, job)
            hit += service.job(job).state not in FINAL
            service.ends(job)
            stage.recovered(killed)
    stage.note(f"{hit} while the job ran")
    service.run_children("quick")


def _submitted(stage: Stage, real: bool) -> str:
    door = stage.service.door
    if real:
        return door.submit_real()
    return door.submit(ms=stage.random.randint(150, 350), salt=stage.random.randrange(1000))


def _wait(stage: Stage) -> None:
    stage.service.rest(stage.random.uniform(0, 1.2))


def _killed(stage: Stage, processes: list[psutil.Process]) -> float:
    stage.service.signal(processes, signal.SIGKILL)
    return time.monotonic()


def _child(stage: Stage, job: str) -> float:
    """One of the job's children: that which prunes, or that which verifies."""
    _wait(stage)
    children = stage.service.children(job)
    return _killed(stage, children and [stage.random.choice(children)])


def _pool(stage: Stage, job: str) -> float:
    _wait(stage)
    holder = stage.service.holder(job)
    return _killed(stage, [holder] if holder else [])


def _worker(stage: Stage, job: str) -> float:
    """The worker's main process; its pool and their children do not outlive it."""
    _wait(stage)
    service = stage.service
    below = service.main("jobs").children(recursive=True)
    service.kill("jobs")
    killed = time.monotonic()
    _, alive = psutil.wait_procs(below, timeout=_DIE_WITHIN)
    stage.hold(not alive, f"{len(alive)} processes outlived their worker")
    return killed


def _database(stage: Stage, job: str) -> float:
    _wait(stage)
    began = time.monotonic()
    stage.service.database.restart()
    return began


def _part(name: str) -> Callable[[Stage, str], float]:
    def killed(stage: Stage, job: str) -> float:
        _wait(stage)
        stage.service.kill(name)
        return time.monotonic()

    return killed


def _pool_storing(stage: Stage, job: str) -> float:
    """The pool process dies at one of the system calls that store a checkpoint or an artifact."""
    service = stage.service
    holder = service.holder(job)
    if holder is None:
        return time.monotonic()
    _at_a_call(stage, holder.pid, lambda: service.job(job).state in FINAL)
    return time.monotonic()


def _api_storing(stage: Stage, job: str) -> float:
    """The API dies at one of the system calls that store an upload; the client sends it again."""
    service = stage.service
    assert service.shim is not None
    shim, when = service.shim, stage.random.choice((KILL_BEFORE, KILL_AFTER))
    pid = service.main("api").pid
    shim.arm(when, EVERY, service.settings.blob_dir, skip=_point(stage), times=1, pid=pid)
    began = time.monotonic()
    try:
        content = network(stage.random.randrange(10, 10**6))
        model = service.door.upload("models", f"n{stage.done}.onnx", content)
    finally:
        shim.disarm()
    service.door.checked(f"/v1/models/{model}")
    return began


def _at_a_call(stage: Stage, pid: int, over: Callable[[], bool]) -> None:
    service = stage.service
    assert service.shim is not None
    when = stage.random.choice((KILL_BEFORE, KILL_AFTER))
    blobs = service.settings.blob_dir
    shim = service.shim
    shim.arm(when, EVERY, blobs, skip=_point(stage), times=1, pid=pid)
    with suppress(NotHeldError):
        service.until(lambda: shim.hits or over(), 20, "the point")
    shim.disarm()


def _point(stage: Stage) -> int:
    return stage.random.randrange(_POINTS)


def _child_writing(stage: Stage, job: str) -> float:
    """The child dies while a checkpoint lies half written in its slot."""
    service = stage.service
    children = service.children(job)
    folders = [Path(slot) for child in children if (slot := _slot(child))]
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:  # as often as can be: a file is there for a moment
        for folder in folders:
            with suppress(OSError):
                if any(p.suffix == ".part" for p in (folder / "checkpoints").iterdir()):
                    return _killed(stage, children)
        if not any(child.is_running() for child in children):
            break
    return _killed(stage, service.children(job))


def _slot(child: psutil.Process) -> str | None:
    with suppress(psutil.Error):
        return child.environ().get("HOME")
    return None


def _check(stage: Stage, job: str) -> float:
    """An upload's check dies, its child or the pool process."""
    service = stage.service
    content = network(stage.random.randrange(10, 10**6))
    model = service.door.upload("models", f"c{stage.done}.onnx", content)
    service.rest(stage.random.uniform(0, 0.3))
    pools = service.pools("checks")
    children = [c for p in pools for c in _children(p)]
    victims = stage.random.choice((pools, children))
    began = _killed(stage, victims)
    found = service.door.checked(f"/v1/models/{model}")
    stage.hold(found["state"] == "ready", f"a killed check ended {found['state']}")
    return began


def _children(process: psutil.Process) -> list[psutil.Process]:
    with suppress(psutil.Error):
        return process.children()
    return []
