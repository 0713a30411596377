"""A child whose job is a chain of digests: quick, with checkpoints, and its bytes known beforehand.

Standard library only. It speaks the protocol of `worker.child` and is started in its place, so
that a hundred faults take minutes; scenarios about the real child use that. A legal spec tells it
what to do, by its seed: see `seed_of`. A checkpoint holds a digest of the one before it, so what a
damaged or foreign checkpoint would do shows in the artifact.
"""

import errno
import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path

CHAIN, CRASH, EAT, HANG, FAIL, REJECT, DIE, LARGE = range(8)
BLOCK = 64 << 10
LARGE_BLOCK = (5 << 20) // 2
LARGE_NAME = "large.sparse.safetensors"


def seed_of(kind: int = CHAIN, steps: int = 5, ms: int = 200, salt: int = 0) -> int:
    """The seed of a job with so many steps of so many milliseconds."""
    assert 0 <= steps < 20
    assert 0 <= ms < 10_000
    assert 0 <= salt < 1000
    return kind * 200_000_000 + salt * 200_000 + steps * 10_000 + ms


def meaning(seed: int) -> tuple[int, int, float]:
    """Kind, steps, seconds a step."""
    kind, rest = divmod(seed, 200_000_000)
    steps, ms = divmod(rest % 200_000, 10_000)
    return kind, steps, ms / 1000


def stretched(seed: bytes) -> bytes:
    """A block of bytes that follow from a few."""
    return hashlib.shake_256(seed).digest(BLOCK)


def first(seed: int, model: bytes, data: bytes) -> bytes:
    """What a chain begins with."""
    digests = hashlib.sha256(model).digest() + hashlib.sha256(data).digest()
    return stretched(str(seed).encode() + digests)


def after(block: bytes) -> bytes:
    """The block that follows."""
    return stretched(hashlib.sha256(block).digest())


def artifact(seed: int, model: bytes, data: bytes) -> bytes:
    """What the undisturbed job writes as the pruned model."""
    block = first(seed, model, data)
    for _ in range(meaning(seed)[1]):
        block = after(block)
    return block


def large(block: bytes) -> bytes:
    """The second artifact of a LARGE job: several parts of what is read and checked at a time."""
    return hashlib.shake_256(block).digest(LARGE_BLOCK)


def say(fd: int, **event: object) -> None:
    line = json.dumps(event).encode() + b"\n"
    while line:
        line = line[os.write(fd, line) :]


def write(path: Path, content: bytes) -> None:
    """Aside, synced and renamed, as the real child does."""
    aside = path.with_suffix(".part")
    with aside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def out(name: str, content: bytes, form: str) -> dict[str, object]:
    Path("out").mkdir(exist_ok=True)
    Path("out", name).write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    return {"name": name, "bytes": len(content), "sha256": sha256, "format": form}


def saved(step: int) -> bytes | None:
    path = Path("checkpoints", f"round-{step}.safetensors")
    return path.read_bytes() if path.exists() else None


def misbehave(fd: int, kind: int) -> None:
    """Never returns."""
    progress = {"type": "progress", "phase": "pruning", "total": 0.0}
    if kind == CRASH:
        os.kill(os.getpid(), signal.SIGSEGV)
    if kind == DIE:
        os.kill(os.getpid(), signal.SIGKILL)
    held = []
    while kind == EAT:
        try:
            held.append(b"x" * (32 << 20))
        except MemoryError:
            error = {"code": "out_of_memory", "message": "The job asked for more than it may have."}
            say(fd, type="failed", error=error)
            sys.exit(1)
        say(fd, done=float(len(held)), **progress)
        time.sleep(0.01)
    while True:
        say(fd, done=1.0, message="the same", **progress)
        time.sleep(0.2)


def prune(fd: int, job: dict) -> None:
    seed = job["spec"]["seed"]
    kind, steps, seconds = meaning(seed)
    model, (data, *_) = job["model"], job["data"].values()
    inputs = [Path(ref["path"]).read_bytes() for ref in (model, data)]
    say(fd, type="phase", phase="pruning")
    if kind in (CRASH, EAT, HANG, DIE):
        misbehave(fd, kind)
    if kind == FAIL:
        error = {"code": "scope_empty", "message": "Nothing is left.", "where": "scope"}
        say(fd, type="failed", error=error)
        sys.exit(1)
    block = first(seed, *inputs)
    for step in range(1, steps + 1):
        if (found := saved(step)) is not None:
            block = found
            continue
        time.sleep(seconds)
        block = after(block)
        path = Path("checkpoints", f"round-{step}.safetensors")
        write(path, block)
        say(fd, type="checkpoint", name=path.name, bytes=len(block))
        whole = {"fraction": step / (steps + 1), "elapsed_seconds": 1.0}
        say(fd, type="progress", phase="pruning", done=step, total=steps, **whole)
    missed = None
    if kind == REJECT:
        missed = {"code": "gate_missed", "message": "It fell.", "where": "gates.max_drop"}
    Path("draft").mkdir()
    Path("draft", "report.json").write_text(json.dumps(missed))
    Path("draft", "reference.safetensors").write_bytes(b"outputs")
    written = [out(model["name"], block, "onnx")]
    if kind == LARGE:
        written.append(out(LARGE_NAME, large(block), "sparse"))
    say(fd, type="done", result={"artifacts": written})


def verify(fd: int, job: dict) -> None:
    _, _, seconds = meaning(job["spec"]["seed"])
    say(fd, type="phase", phase="verifying")
    time.sleep(seconds)
    missed = json.loads(Path("draft", "report.json").read_text())
    digests = {
        name: hashlib.sha256(Path(ref["path"]).read_bytes()).hexdigest()
        for name, ref in sorted(job["outputs"].items())
    }
    entry = out("report.json", json.dumps(digests).encode(), "report.json")
    result = {"artifacts": [entry], "summary": {}, "rejected": missed}
    say(fd, type="done", state="rejected" if missed else "succeeded", result=result)


def main() -> None:
    fd = int(sys.argv[-1])
    line = sys.stdin.buffer.readline()
    if not line.endswith(b"\n"):
        return
    job = json.loads(Path(os.fsdecode(line[:-1])).read_text())
    try:
        (verify if job["kind"] == "verify" else prune)(fd, job)
    except OSError as problem:
        if problem.errno != errno.ENOSPC:
            raise
        error = {"code": "storage_full", "message": "The disk has no room left."}
        say(fd, type="failed", error=error)
        sys.exit(1)


if __name__ == "__main__":
    main()
