"""A child for tests: does what the job's spec says under `do`. Standard library only.

Speaks the protocol of `worker.child`: one line on stdin names job.json, events leave on the
descriptor that is the last argument.
"""

import ctypes
import json
import mmap
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

EVENTS = int(sys.argv[-1])


def say(**event):
    line = json.dumps(event).encode() + b"\n"
    while line:
        line = line[os.write(EVENTS, line) :]


def progress(done, message=""):
    say(type="progress", phase="pruning", done=done, total=10, message=message)


def out(name="pruned.onnx", content=b"pruned"):
    Path("out").mkdir(exist_ok=True)
    Path("out", name).write_bytes(content)
    return {"name": name, "bytes": len(content), "sha256": "0" * 64, "format": "onnx"}


def done(artifacts, summary=None, rejected=None):
    """The first half is over; the second says the rest."""
    Path("draft").mkdir(exist_ok=True)
    Path("draft", "report.json").write_text(json.dumps([summary or {}, rejected]))
    Path("draft", "reference.safetensors").write_bytes(b"outputs")
    say(type="done", result={"artifacts": artifacts})


def verify(job):
    """The second half: what the spec says under `then`, or a good end."""
    if "then" in job["spec"]:
        globals()[job["spec"]["then"]](job["spec"])
        return
    summary, rejected = json.loads(Path("draft/report.json").read_text())
    found = {name: Path(ref["path"]).read_bytes() for name, ref in job["outputs"].items()}
    content = json.dumps({name: len(content) for name, content in found.items()}).encode()
    entry = out("report.json", content) | {"format": "report.json"}
    result = {"artifacts": [entry], "summary": summary, "rejected": rejected}
    say(type="done", state="rejected" if rejected else "succeeded", result=result)


def checkpoint(name, content=b"weights"):
    Path("checkpoints", name).write_bytes(content)
    say(type="checkpoint", name=name, bytes=len(content))


def saved():
    return sorted(p.name for p in Path("checkpoints").iterdir())


def succeed(spec):
    say(type="phase", phase="loading")
    model = Path("inputs/model").read_bytes()
    say(type="phase", phase="pruning")
    for i in range(3):
        progress(i)
    say(type="metric", name="accuracy", stage="dense", value=0.5)
    done([out(content=model[::-1])], {"pid": os.getpid(), "checkpoints": saved()})


def reject(spec):
    missed = {"code": "gate_missed", "message": "accuracy fell", "where": "gates.max_drop"}
    done([out()], rejected=missed)


def confess(spec):
    status = Path("/proc/self/status").read_text()
    limits = {n: resource.getrlimit(getattr(resource, n)) for n in spec["limits"]}
    done(
        [out()],
        {
            "environ": dict(os.environ),
            "cwd": os.getcwd(),
            "leads": [os.getpid() == os.getsid(0), os.getpid() == os.getpgid(0)],
            "status": dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line),
            "limits": limits,
            "stdin": os.readlink("/proc/self/fd/0"),
            "descriptors": sorted(int(n) for n in os.listdir("/proc/self/fd")),
            "events": EVENTS,
            "umask": os.umask(0),
            "inputs": {p.name: oct(p.stat().st_mode) for p in Path("inputs").iterdir()},
        },
    )


def endless_draft(spec):
    """64 GiB that take no place."""
    Path("draft").mkdir()
    with Path("draft", "report.json").open("wb") as file:
        file.truncate(1 << 36)
    say(type="done", result={"artifacts": [out()]})


def shout(spec):
    """Each text as long as a line lets it be; details as deep and wide as JSON goes."""
    long = "\0" + "ä" * 100_000
    say(type="warning", code=long[:300], message=long, where=long[:300])
    say(type="metric", name=long, stage="dense", value=1.0)
    say(type="progress", phase="pruning", done=1, total=2, message=long)
    deep = "x"
    for _ in range(150):
        deep = [deep]
    wide = {f"name {i}": "y" * 90 for i in range(1_000)}
    details = {"deep": deep, "wide": wide, "code": 1, "where": 2, "self": 3, "kept": "\0k"}
    error = {"code": "scope_empty", "message": long, "hint": long[:9000], "details": details}
    say(type="failed", error=error)
    sys.exit(1)


def many_long(spec):
    while True:
        say(type="warning", code="x", message="y" * 4000)


def strange_type(spec):
    say(type="y" * 500_000)
    time.sleep(60)


def strange_file(spec):
    say(type="checkpoint", name="y" * 500_000, bytes=1)
    time.sleep(60)


def not_finite(spec):
    os.write(EVENTS, b'{"type":"metric","name":"loss","stage":"dense","value":NaN}\n')
    time.sleep(60)


def long_summary(spec):
    entry = out("report.json", b"{}") | {"format": "report.json"}
    say(type="done", result={"artifacts": [entry], "summary": {"text": "y" * 100_000}})


def long_rejection(spec):
    entry = out("report.json", b"{}") | {"format": "report.json"}
    missed = {"code": "gate_missed", "message": "y" * 100_000, "where": "z" * 9000}
    say(type="done", state="rejected", result={"artifacts": [entry], "rejected": missed})


def odd_facts(spec):
    say(type="done", result={"facts": {"format": "onnx", "na\0me": ["\0", float("inf")]}})


def odd_kind(spec):
    done([out() | {"format": "x" * 10_000}])


def stand(spec):
    progress(1, str(os.getpid()))
    while True:
        time.sleep(60)


def stop(spec):
    progress(1, str(os.getpid()))
    os.kill(os.getpid(), signal.SIGSTOP)


def fractions(spec, phases):
    for phase, fraction in phases:
        say(type="phase", phase=phase)
        whole = {"fraction": fraction, "elapsed_seconds": 1.0, "eta_seconds": 1.0}
        say(type="progress", phase=phase, done=0, total=0, **whole)
        time.sleep(0.2)


def tell(spec):
    fractions(spec, zip(("loading", "scoring", "pruning"), spec["told"], strict=True))
    done([out()])


def tell_on(spec):
    phases = ("verifying", "evaluating", "verifying", "exporting")
    fractions(spec, zip(phases, spec["more"], strict=True))
    entry = out("report.json", b"{}") | {"format": "report.json"}
    say(type="done", result={"artifacts": [entry], "summary": {}})


def repeat(spec):
    """Says the same again and again."""
    while True:
        progress(1, "same")
        time.sleep(0.05)


def stand_once(spec):
    """Stands in the first attempt, succeeds in later ones."""
    if "stood" not in saved():
        checkpoint("stood")
        stand(spec)
    succeed(spec)


def wait_for_file(spec):
    progress(1, "waiting")
    while not Path(spec["path"]).exists():
        time.sleep(0.02)
    done([out()])


def ignore_term(spec):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    stand(spec)


def family(spec):
    """Two more processes: one in the group, one that left group and session."""
    stay = subprocess.Popen(["sleep", "600"])
    leave = subprocess.Popen(["sleep", "600"], start_new_session=True)
    progress(1, f"{stay.pid} {leave.pid}")
    while True:
        time.sleep(60)


def orphans(spec):
    """Ends well, but leaves a process behind."""
    left = subprocess.Popen(["sleep", "600"], start_new_session=True)
    done([out()], {"left": left.pid})


def crash(spec):
    print("about to crash", flush=True)
    os._exit(3)


def killed(spec):
    os.kill(os.getpid(), signal.SIGKILL)


def crash_until_saved(spec):
    """One checkpoint an attempt, then death, until there are `spec.steps` of them."""
    have = saved()
    missing = [i for i in range(spec["steps"]) if f"round-{i}.safetensors" not in have]
    if missing:
        checkpoint(f"round-{missing[0]}.safetensors", b"weights" * (missing[0] + 1))
        os.kill(os.getpid(), signal.SIGKILL)
    done([out()], {"checkpoints": have})


def fail(spec):
    say(type="phase", phase="loading")
    out()
    say(type="failed", error={"code": "scope_empty", "message": "Nothing left.", "where": "scope"})
    sys.exit(1)


def find_no_room(spec):
    error = {"code": "storage_full", "message": "The disk had no room for the job's files."}
    say(type="failed", error=error)
    sys.exit(1)


def write(spec):
    done([out(content=bytes(spec["bytes"]))])


def fail_oddly(spec):
    say(type="failed", error={"code": 7, "message": ["?"], "details": 3})
    sys.exit(1)


def no_json(spec):
    os.write(EVENTS, b"hello\n")
    time.sleep(60)


def long_line(spec):
    while True:
        os.write(EVENTS, b"x" * 65536)


def alive_event(spec):
    say(type="alive", quiet_seconds=0.0)
    time.sleep(60)


def state_event(spec):
    say(type="state", state="succeeded")
    time.sleep(60)


def spam(spec):
    while True:
        say(type="metric", name="loss", stage="dense", value=1.0)


def noise(spec):
    for _ in range(4000):
        print("n" * 1000)
    print("the end", flush=True)
    os._exit(4)


def symlink(spec):
    entry = out()
    Path("out/pruned.onnx").unlink()
    Path("out/pruned.onnx").symlink_to("/etc/hostname")
    done([entry])


def hard_link(spec):
    entry = out()
    os.link("out/pruned.onnx", "tmp/other")
    done([entry])


def linked_folder(spec):
    Path("out").symlink_to("/etc")
    done([{"name": "hostname", "bytes": 1, "sha256": "0" * 64, "format": "onnx"}])


def pipe(spec):
    entry = out()
    Path("out/pruned.onnx").unlink()
    os.mkfifo("out/pruned.onnx")
    done([entry])


def elsewhere(spec):
    done([out() | {"name": "../job.json"}])


def twice(spec):
    done([out(), out()])


def nothing(spec):
    done([])


def no_draft(spec):
    say(type="done", result={"artifacts": [out()]})


def draft_elsewhere(spec):
    Path("draft").symlink_to("/etc")
    say(type="done", result={"artifacts": [out()]})


def quiet(spec):
    done([out()])


def second_writes_a_model(spec):
    entry = out()
    say(type="done", result={"artifacts": [entry]})


def missing(spec):
    done([out() | {"name": "other.onnx"}])


def checkpoint_elsewhere(spec):
    say(type="checkpoint", name="../job.json", bytes=1)
    time.sleep(60)


def eat(spec):
    progress(1)
    held = bytearray(spec["bytes"])
    held[::4096] = b"x" * len(held[::4096])
    time.sleep(60)


def grow(spec):
    """As fast as it can, in shared memory too."""
    held = []
    while True:
        memory = mmap.mmap(-1, 64 << 20, spec["flags"] | mmap.MAP_ANONYMOUS)
        memory[::4096] = b"x" * len(memory[::4096])
        held.append(memory)


def demand(spec):
    """One allocation that is far too large, which nobody catches."""
    print(len(bytearray(1 << 45)))


def throw(spec):
    """What a C++ library does where nobody catches its error."""
    new = ctypes.CDLL("libstdc++.so.6")._Znwm
    new(ctypes.c_size_t(1 << 45))


def start_threads(spec):
    threading.stack_size(32 << 10)
    while True:
        try:
            threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
        except RuntimeError:
            time.sleep(0.01)


def fork_on(spec):
    """Twice as many processes every tenth of a second."""
    while True:
        os.fork()
        time.sleep(0.1)


def linger(spec):
    done([out()])
    time.sleep(60)


def main():
    line = sys.stdin.buffer.readline()
    if not line.endswith(b"\n"):
        return
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    job = json.loads(Path(os.fsdecode(line[:-1])).read_text())
    if job["kind"] == "verify":
        verify(job)
        return
    if job["kind"] != "prune":
        uploaded = Path("inputs", "model" if job["model"] else "calibration").read_bytes()
        if uploaded.startswith(b"{"):
            spec = json.loads(uploaded)
            globals()[spec["do"]](spec)
            return
        facts = {"format": "onnx", "kind": job["kind"]}
        say(type="done", state="succeeded", result={"facts": facts})
        return
    globals()[job["spec"]["do"]](job["spec"])


main()
