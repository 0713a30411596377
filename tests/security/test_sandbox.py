"""What the sandbox denies, tried by a real child under the real launcher at each level."""

import ctypes
import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from worker.levels import Means, choose, means
from worker.process import Child
from worker.sandbox import Limits, Sandbox
from worker.slots import House
from worker.watch import MAX_THREADS

PRISONER = str(Path(__file__).with_name("prisoner.py"))
LIMITS = Limits(threads=2, cpu_seconds=60, file_bytes=1 << 20)
LEVELS = ["bubblewrap", "landlock"]
LIBC = ctypes.CDLL(None)
PYTHON = (sys.executable, "-P", "-u")


def sandbox_at(level: str) -> Sandbox:
    """The sandbox of a level; the test is skipped on machines without it."""
    has = means()
    if level == "landlock":
        has = Means(has.landlock, has.seccomp, None)
    elif has.bubblewrap is None:
        pytest.skip("bubblewrap is not installed")
    found = choose("best", has=has)
    if found.level != level:
        pytest.skip(f"no {level} here: {found.reason}")
    return found


@pytest.fixture(scope="module", params=LEVELS)
def closed(request: pytest.FixtureRequest) -> Sandbox:
    return sandbox_at(request.param)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path / "slots")
    yield made
    made.close()


def follow(child: Child, seconds: float = 60.0) -> int:
    """Listen until the child has ended; its exit code."""
    deadline = time.monotonic() + seconds
    while (code := child.returncode) is None:
        assert time.monotonic() < deadline, child.log
        child.read(0.05)
    assert child.end(0.0)
    return code


def run(
    house: House,
    closed: Sandbox,
    *program: str,
    limits: Limits = LIMITS,
    meanwhile: Callable[[Child], None] = lambda child: None,
) -> tuple[int, str]:
    """Run a program in the sandbox to its end: exit code and what it printed."""
    slot = house.slot()
    child = Child(slot, (*PYTHON, *program), limits, closed)
    try:
        meanwhile(child)
        return follow(child), child.log
    finally:
        child.end(0.0)
        child.close()
        slot.wipe()


@pytest.fixture(scope="module")
def report(closed: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What a prisoner tells of one life, beside the service's own files and another slot."""
    data = tmp_path_factory.mktemp("data")
    secrets = {
        "database": data / "secateur.db",
        "blob": data / "blobs" / "ab" / "abcd",
        "key": data / "credentials.json",
        "another slot": data / "slots" / "other" / "job.json",
        "project": Path(__file__).parents[2] / "pyproject.toml",
    }
    for name, path in secrets.items():
        if name != "project":
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("secret")
    house = House(data / "slots")
    before = {name: (path.stat().st_mode, path.stat().st_mtime) for name, path in secrets.items()}
    os.environ["SECATEUR_REDIS_URL"] = "redis://:secret@broker"
    shared = {"memory": LIBC.shmget(0, 4096, 0o1600), "semaphores": LIBC.semget(0, 1, 0o1600)}
    processors = os.sched_getaffinity(0)
    try:
        named = json.dumps({name: str(path) for name, path in secrets.items()})
        code, said = run(house, closed, PRISONER, named, json.dumps(shared))
        assert os.sched_getaffinity(0) == processors
    finally:
        del os.environ["SECATEUR_REDIS_URL"]
        LIBC.shmctl(shared["memory"], 0, None)
        LIBC.semctl(shared["semaphores"], 0, 0)
        house.close()
    assert code == 0, said
    told = json.loads(said.splitlines()[-1])
    after = {name: (path.stat().st_mode, path.stat().st_mtime) for name, path in secrets.items()}
    return told | {"folder": str(house.folder), "untouched": before == after}


def test_everything_that_is_tried_is_refused(report: dict):
    outcomes = report["outcomes"]
    assert len(outcomes) > 80
    assert report["untouched"]
    allowed = {name for name, outcome in outcomes.items() if "done" in outcome}
    assert {name for name in allowed if not name.startswith("own: ")} == listed(allowed)


def listed(allowed: set[str]) -> set[str]:
    """Landlock knows no folder whose own names alone may be read: those of the project show."""
    return {"list: folder of project"} & allowed


def test_what_a_job_does_is_let_through(report: dict):
    own = {n: o for n, o in report["outcomes"].items() if n.startswith("own: ")}
    assert len(own) == 11
    assert all("done" in outcome for outcome in own.values()), own


def test_no_process_can_be_started(report: dict):
    assert report["outcomes"]["forks"] == {"started": 0, "errno": errno.EPERM}


def test_sockets_are_refused_by_the_filter_and_not_for_want_of_a_route(report: dict):
    tried = {o["errno"] for n, o in report["outcomes"].items() if n.startswith("network: ")}
    assert tried == {errno.EPERM}


def test_what_could_outlive_the_child_is_refused_by_the_filter(report: dict):
    tried = {n: o.get("errno") for n, o in report["outcomes"].items() if n.startswith("shared: ")}
    assert len(tried) == 10
    by_files = {"shared: memory of POSIX", "shared: semaphore of POSIX"}
    assert {tried[name] for name in tried.keys() - by_files} == {errno.EPERM}
    assert all(tried[name] for name in by_files)


def test_attributes_of_files_read_as_if_there_were_none(report: dict):
    tried = {o["errno"] for n, o in report["outcomes"].items() if n.startswith("attributes: ")}
    assert tried <= {errno.ENOTSUP, errno.ENOENT}


def test_libc_is_told_that_clone3_does_not_exist(report: dict):
    assert report["outcomes"]["clone3"]["errno"] == errno.ENOSYS


def test_files_over_the_limit_are_refused(report: dict):
    assert report["outcomes"]["large file"]["errno"] == errno.EFBIG


def test_no_privilege_is_left_or_can_be_gained(report: dict):
    status = report["status"]
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(status[name], 16) == 0, name
    # What bounds them means nothing to anyone but root once no privilege can be gained.
    assert os.geteuid() != 0 or int(status["CapBnd"], 16) == 0


def test_the_environment_is_cleared_and_temporary_files_lie_in_the_slot(report: dict):
    assert "secret" not in json.dumps(report["environ"])
    assert report["environ"]["HOME"] == report["cwd"]
    assert report["cwd"].startswith(report["folder"])
    assert report["temporary"] == report["environ"]["TMPDIR"] == report["cwd"] + "/tmp"


FOR_CUDA = """
import ctypes, os, socket
from worker import seccomp
waiting = socket.socket(socket.AF_UNIX)
waiting.bind("server")
waiting.listen()
ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)
seccomp.close(gpu=True)
for name in ("UNIX SEQPACKET", "UNIX STREAM", "UNIX DGRAM", "INET STREAM"):
    family, kind = name.split()
    try:
        made = socket.socket(getattr(socket, "AF_" + family), getattr(socket, "SOCK_" + kind))
        made.bind("\\0secateur" + kind + str(os.getpid()))
        made.listen()
        print("bound", end=" ")
        made = socket.socket(socket.AF_UNIX, getattr(socket, "SOCK_" + kind))
        made.connect("server")
        print("connected", end=" ")
    except PermissionError:
        print("refused", end=" ")
"""


def test_with_a_gpu_local_sockets_are_bound_and_not_connected(tmp_path: Path):
    if not means().seccomp:
        pytest.skip("no seccomp here")
    environment = {"PYTHONPATH": str(Path(__file__).parents[2])}
    ended = subprocess.run(
        [sys.executable, "-c", FOR_CUDA],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.stdout.split() == ["bound", "refused", "bound", "refused", "refused", "refused"], (
        ended.stderr
    )


EVERY_THREAD = """
import json, os, threading, pathlib
import numpy as np
np.linalg.svd(np.ones((300, 300)))
done = threading.Barrier(4)
seen = []
def look():
    try:
        os.open("/etc/passwd", os.O_RDONLY)
        seen.append("read")
    except OSError:
        seen.append("refused")
    done.wait()
    done.wait()
threads = [threading.Thread(target=look) for _ in range(3)]
for thread in threads:
    thread.start()
done.wait()
modes = {
    line.split()[1]
    for task in pathlib.Path("/proc/self/task").iterdir()
    for line in (task / "status").read_text().splitlines()
    if line.startswith("Seccomp:")
}
count = len(os.listdir("/proc/self/task"))
done.wait()
print(json.dumps([sorted(set(seen)), sorted(modes), count]))
"""


def test_threads_that_imports_start_are_closed_in_too(closed: Sandbox, house: House):
    code, said = run(house, closed, "-c", EVERY_THREAD)
    assert code == 0, said
    seen, modes, threads = json.loads(said.splitlines()[-1])
    assert (seen, modes) == (["refused"], ["2"])
    assert threads >= 4


NO_PROGRAMS = """
import os, threading
from worker import seccomp
go, results = threading.Event(), []
def other():
    go.wait()
    start()
def start():
    try:
        os.execv("/bin/true", ["true"])
    except PermissionError:
        results.append("refused")
thread = threading.Thread(target=other)
thread.start()
seccomp.forbid_programs()
go.set()
thread.join()
start()
print(results)
"""


def test_a_child_forbids_all_its_threads_to_start_programs(closed: Sandbox, house: House):
    code, said = run(house, closed, "-c", NO_PROGRAMS)
    assert (code, said.splitlines()[-1]) == (0, "['refused', 'refused']")


MEMORY = """
import mmap, sys
print("waits", flush=True)
sys.stdin.readline()
try:
    mmap.mmap(-1, int(sys.argv[1]))
    print("got it")
except (MemoryError, OSError):
    print("refused")
"""


@pytest.mark.parametrize(("wanted", "says"), [(1 << 20, "got it"), (64 << 30, "refused")])
def test_a_running_child_is_given_its_jobs_memory_limit(
    closed: Sandbox, house: House, wanted: int, says: str
):
    def hand_over(child: Child) -> None:
        while "waits" not in child.log:
            child.read(0.05)
        child.hand_over(1 << 30)

    code, said = run(house, closed, "-c", MEMORY, str(wanted), meanwhile=hand_over)
    assert (code, said.split()[-len(says.split()) :]) == (0, says.split())


def test_a_limit_given_at_once_reaches_a_child_that_is_still_starting(
    closed: Sandbox, house: House
):
    def hand_over(child: Child) -> None:
        child.hand_over(1 << 30)

    code, said = run(house, closed, "-c", MEMORY, str(64 << 30), meanwhile=hand_over)
    assert (code, said.split()[-1]) == (0, "refused")


BOMB = """
import sys, threading, time
sys.stdin.readline()
threading.stack_size(32 << 10)
while True:
    try:
        threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
    except RuntimeError:
        time.sleep(0.01)
"""


def test_a_child_that_starts_threads_without_end_is_ended(closed: Sandbox, house: House):
    began = time.monotonic()
    children: list[Child] = []

    def hand_over(child: Child) -> None:
        child.hand_over()
        children.append(child)

    code, _ = run(house, closed, "-c", BOMB, meanwhile=hand_over)
    assert code == -signal.SIGKILL
    excess = children[0].excess
    assert excess is not None
    assert excess.what == "threads"
    assert MAX_THREADS < excess.found < 4 * MAX_THREADS
    assert time.monotonic() - began < 30


def test_cpu_time_runs_out_and_the_signal_is_told(closed: Sandbox, house: House):
    limits = Limits(threads=1, cpu_seconds=1, file_bytes=1 << 20)
    code, _ = run(house, closed, "-c", "while True: pass", limits=limits)
    assert code in (-signal.SIGXCPU, -signal.SIGKILL)


@pytest.mark.parametrize(("ends", "code"), [("os._exit(7)", 7), ("os.abort()", -signal.SIGABRT)])
def test_how_a_child_ended_is_told(closed: Sandbox, house: House, ends: str, code: int):
    assert run(house, closed, "-c", f"import os; {ends}")[0] == code


def test_the_supervisor_ends_a_child_that_ignores_it(closed: Sandbox, house: House):
    program = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up'); time.sleep(99)"
    slot = house.slot()
    child = Child(slot, (*PYTHON, "-c", program), LIMITS, closed)
    while "up" not in child.log:
        child.read(0.05)
    began = time.monotonic()
    assert child.end(0.2)
    assert time.monotonic() - began < 5
    child.close()


def test_a_child_dies_with_the_thread_that_started_it(closed: Sandbox, house: House):
    children: list[Child] = []

    def start() -> None:
        program = (*PYTHON, "-c", "print('up'); import time; time.sleep(99)")
        child = Child(house.slot(), program, LIMITS, closed)
        children.append(child)
        while "up" not in child.log:
            child.read(0.05)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert follow(children[0], 10) == -signal.SIGKILL
    children[0].close()


LIBRARIES = """
import importlib.util, os
from worker import seccomp
seccomp.forbid_programs()
import numpy, onnx, onnxruntime, torch, torch.export, torch.func
from onnx import TensorProto, helper
torch.nn.Conv2d(3, 8, 3)(torch.randn(1, 3, 8, 8)).sum().backward()
torch.linalg.svd(torch.randn(64, 64))
value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2]) for n in "xy"]
graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", value[:1], value[1:])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
session = onnxruntime.InferenceSession(model.SerializeToString())
assert session.run(None, {"x": numpy.array([-1, 1], "float32")})[0].tolist() == [0, 1]
program = torch.export.export(torch.nn.Linear(4, 3), (torch.randn(2, 4),))
torch.export.save(program, "tmp/program.pt2")
if importlib.util.find_spec("pyarrow"):
    import pyarrow, pyarrow.parquet
    pyarrow.parquet.write_table(pyarrow.table({"a": [1, 2]}), "tmp/table.parquet")
    assert pyarrow.parquet.read_table("tmp/table.parquet").num_rows == 2
if importlib.util.find_spec("tokenizers"):
    from tokenizers import Tokenizer, models
    words = Tokenizer(models.WordLevel({"a": 0, "?": 1}, unk_token="?"))
    assert [e.ids for e in words.encode_batch(["a", "b"] * 50)][:2] == [[0], [1]]
if importlib.util.find_spec("transformers"):
    from transformers import BertConfig, BertModel
    sizes = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    BertModel(BertConfig(vocab_size=9, **sizes))(torch.ones(1, 5, dtype=torch.long))
print("all work")
"""


def test_the_libraries_of_a_job_work_under_it(house: House):
    closed = choose("best")
    if closed.level == "limits":
        pytest.skip(f"no sandbox here: {closed.reason}")
    limits = Limits(threads=1, cpu_seconds=100, file_bytes=1 << 30)
    code, said = run(house, closed, "-c", LIBRARIES, limits=limits)
    assert (code, said.splitlines()[-1]) == (0, "all work"), said
