"""Memory and threads of an attempt: how much there is for each, and what is said of going over."""

import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench import ROOT, Bench

from store.queries import models
from store.tables import Attempt, Model
from worker import memory, watch
from worker.answer import answer
from worker.deaths import Kept, starved
from worker.endings import Failed, Lost
from worker.slots import House, Occupant
from worker.workplace import CHECKS_PROGRAM, open_workplace

GB = 10**9
MIB = 1 << 20


def test_all_pools_on_a_machine_stay_under_its_memory(tmp_path: Path):
    pools = {"checks": (1, memory.CHECKS), "jobs": (2, memory.JOBS), "more jobs": (1, memory.JOBS)}
    houses = [
        House(tmp_path, Occupant(weight=weight, ahead=2))
        for count, weight in pools.values()
        for _ in range(count)
    ]
    main = House(tmp_path)  # of a worker's main process, in which no child works
    shares = [
        memory.share(tmp_path, count, weight, 100 * GB) or 0
        for count, weight in pools.values()
        for _ in range(count)
    ]
    ahead = len(houses) * 2 * (320 << 20)
    assert sum(shares) + ahead <= 80 * GB
    assert sum(shares) + ahead > 79 * GB
    assert shares[1:] == [shares[1]] * 3
    assert shares[1] == pytest.approx(2 * shares[0])
    for house in (*houses, main):
        house.close()
    assert memory.share(tmp_path, 1, memory.JOBS, 100 * GB) == 80 * GB


def test_children_started_ahead_leave_at_least_half_to_those_that_work(tmp_path: Path):
    house = House(tmp_path, Occupant(weight=memory.JOBS, ahead=2))
    assert memory.share(tmp_path, 1, memory.JOBS, GB) == 0.4 * GB
    house.close()


def test_processes_that_have_yet_to_start_have_their_share(tmp_path: Path):
    house = House(tmp_path, Occupant(weight=memory.JOBS))
    assert memory.share(tmp_path, 4, memory.JOBS, 100 * GB) == 20 * GB
    house.close()


def test_the_pools_of_one_service_tell_each_other(bench: Bench):
    whole = memory.machine_bytes()
    jobs = bench.place(child_memory_bytes=None)
    alone = jobs.memory_bytes
    checks = open_workplace(jobs.settings, bench.folder / "drain", program=CHECKS_PROGRAM)
    bench.places.append(checks)
    assert whole is not None and alone is not None  # noqa: PT018
    assert jobs.memory_bytes is not None and checks.memory_bytes is not None  # noqa: PT018
    assert jobs.memory_bytes < alone
    assert jobs.memory_bytes + checks.memory_bytes <= 0.8 * whole
    assert checks.memory_bytes == pytest.approx(jobs.memory_bytes / 2)


def groups(tmp_path: Path, **files: str) -> Path:
    """A machine whose process is in the group /outer/inner of version 2; files by group."""
    proc, top = tmp_path / "proc/self", tmp_path / "sys/fs/cgroup"
    proc.mkdir(parents=True)
    (proc / "mountinfo").write_text("31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
    (proc / "cgroup").write_text("0::/outer/inner\n")
    (top / "outer/inner").mkdir(parents=True)
    for name, text in files.items():
        group, _, file = name.partition("__")
        (top / {"outer": "outer", "inner": "outer/inner"}[group] / file.replace("_", ".", 1)
         ).write_text(text)  # fmt: skip
    return tmp_path


@pytest.mark.parametrize(
    ("files", "bytes_"),
    [
        ({"inner__memory_max": "max\n", "outer__memory_max": "1000000\n"}, 1_000_000),
        ({"inner__memory_max": "2000000\n", "outer__memory_max": "3000000\n"}, 2_000_000),
        ({"inner__memory_max": "2000000\n", "inner__memory_high": "1500000\n"}, 1_500_000),
        ({"inner__memory_max": "max\n"}, None),
    ],
)
def test_the_smallest_limit_of_the_groups_around_the_process_counts(
    tmp_path: Path, files: dict[str, str], bytes_: int | None
):
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert memory.machine_bytes(groups(tmp_path, **files)) == (bytes_ or machine)


def test_the_older_version_of_groups_counts_as_well(tmp_path: Path):
    root = groups(tmp_path)
    mounted = "35 31 0:32 / /sys/fs/cgroup rw - cgroup cgroup rw,memory\n"
    (root / "proc/self/mountinfo").write_text(mounted)
    (root / "proc/self/cgroup").write_text("4:memory:/outer/inner\n")
    (root / "sys/fs/cgroup/outer/memory.limit_in_bytes").write_text("4000000\n")
    (root / "sys/fs/cgroup/outer/inner/memory.oom_control").write_text("under_oom 0\noom_kill 3\n")
    assert memory.machine_bytes(root) == 4_000_000
    assert memory.kernel_kills(root) == 3


def test_what_the_kernel_ended_is_counted_in_the_own_group_before_the_whole_machine(tmp_path: Path):
    root = groups(tmp_path)
    assert memory.kernel_kills(root) is None
    (root / "proc/vmstat").write_text("nr_free_pages 5\noom_kill 7\n")
    assert memory.kernel_kills(root) == 7
    (root / "sys/fs/cgroup/outer/inner/memory.events").write_text("oom 2\noom_kill 1\n")
    assert memory.kernel_kills(root) == 1


@pytest.mark.parametrize("half", ["do", "then"])
@pytest.mark.parametrize("flags", [mmap.MAP_PRIVATE, mmap.MAP_SHARED])
def test_memory_that_grows_fast_ends_the_job_in_either_half(bench: Bench, half: str, flags: int):
    place = bench.place(child_memory_bytes=100 * MIB, max_attempts=3)
    asked = {"do": "succeed", half: "grow"}
    _, job = bench.attempt(asked.pop("do"), place, flags=flags, **asked)
    assert (job.state, job.error["code"]) == ("failed", "out_of_memory")
    assert "It may keep 100.0 MiB; the most that was seen is" in job.error["message"]
    assert job.error["details"]["limit_bytes"] == 100 * MIB
    assert 100 * MIB < job.error["details"]["peak_bytes"] < 4096 * MIB
    assert "SECATEUR_CHILD_MEMORY_BYTES" in job.error["hint"]
    assert [a.outcome for a in bench.rows(Attempt, job_id=job.id)] == ["failed"]


def test_the_limit_holds_while_the_supervisor_waits_for_something_else(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    """The database, say, or a disk."""
    ended: list[bool] = []

    def blocked(attempt: object, *_: object) -> None:
        child = attempt._children[0]  # type: ignore[attr-defined]
        waiting = [child._process.wait(20), child.excess is not None]
        ended.extend([waiting[0] != 0, waiting[1]])

    monkeypatch.setattr("worker.supervisor.Attempt._take", blocked)
    place = bench.place(child_memory_bytes=100 * MIB)
    _, job = bench.attempt("eat", place, bytes=400 * MIB)
    assert ended == [True, True]
    assert job.error["code"] == "out_of_memory"


def test_the_limit_holds_for_intake_checks(bench: Bench):
    asked = b'{"do": "grow", "flags": %d}' % mmap.MAP_PRIVATE
    model = bench.upload(models, "greedy.onnx", asked)
    assert answer(bench.place(child_memory_bytes=100 * MIB), "check") == 1
    (row,) = bench.rows(Model, id=model)
    assert (row.state, row.error["code"]) == ("rejected", "out_of_memory")


@pytest.mark.parametrize("do", ["demand", "throw"])
def test_an_allocation_that_fails_unseen_is_out_of_memory(bench: Bench, do: str):
    _, job = bench.attempt(do, bench.place(child_memory_bytes=1 << 30))
    assert (job.state, job.error["code"]) == ("failed", "out_of_memory")
    assert job.error["details"]["limit_bytes"] == 1 << 30


IN_A_GROUP = r'''
import os, sys, time
from pathlib import Path
group, slots, limit = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
(group / "cgroup.procs").write_text(str(os.getpid()))
from worker import deaths
from worker.process import Child
from worker.sandbox import Limits, Sandbox
from worker.slots import House
EAT = """
import sys, time
sys.stdin.readline()
held = []
while True:
    held.append(b"x" * (4 << 20))
    time.sleep(0.004)
"""
house = House(slots)
limits = Limits(threads=1, cpu_seconds=60, file_bytes=1 << 20)
child = Child(house.slot(), (sys.executable, "-S", "-c", EAT), limits, Sandbox())
child.hand_over(limit)
while child.returncode is None:
    child.read(0.05)
child.end(0)
found = deaths.starved(child.returncode, child.log, child.kept)
print(child.returncode, type(found).__name__, found.error["code"], found.error["message"])
house.close()
'''


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group that may have 300 MiB, where this machine lets one be made."""
    top = Path("/sys/fs/cgroup/memory")
    made = (top if top.is_dir() else top.parent) / f"secateur-test-{os.getpid()}"
    try:
        made.mkdir()
        for name in ("memory.limit_in_bytes", "memory.max"):
            if (made / name).exists():
                (made / name).write_text(str(300 * MIB))
                break
        else:
            pytest.skip("no control groups for memory")
        yield made
    except OSError as error:
        pytest.skip(f"no control group can be made: {error}")
    finally:
        if made.is_dir():
            made.rmdir()


@pytest.mark.parametrize(("limit", "ends"), [(1 << 30, "Lost"), (310 * MIB, "Failed")])
def test_a_death_by_the_kernel_is_out_of_memory_and_final_only_at_the_own_limit(
    group: Path, tmp_path: Path, limit: int, ends: str
):
    command = [sys.executable, "-c", IN_A_GROUP, str(group), str(tmp_path / "slots"), str(limit)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.stdout.split()[:3] == ["-9", ends, "out_of_memory"], ended.stdout + ended.stderr
    assert "The kernel ended the job's process because the machine's memory ran out" in ended.stdout


def test_a_kill_that_was_not_for_memory_is_none():
    assert starved(-9, "", Kept(limit=1 << 30, peak=1 << 30, kernel_kills=0)) is None
    assert starved(-11, "", Kept(limit=1 << 30, peak=1 << 30, kernel_kills=5)) is None
    assert starved(0, "out of memory", Kept(limit=1, peak=0, kernel_kills=0)) is None
    unknown = Kept(limit=1 << 30, peak=1 << 30, kernel_kills=None)
    assert type(starved(-9, "", unknown)) is Failed
    others = Kept(limit=1 << 30, peak=1, kernel_kills=1)
    assert type(starved(-9, "", others)) is Lost


def test_a_job_that_the_kernel_ends_again_and_again_says_so_at_last(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    killed = iter(range(100))
    monkeypatch.setattr(memory, "kernel_kills", lambda: next(killed))
    job = bench.submit("killed")
    assert answer(bench.place(child_memory_bytes=1 << 30), "cpu") == 3
    error = bench.job(job).error
    assert error["code"] == "attempts_exhausted"
    assert error["details"]["last_error"]["code"] == "out_of_memory"


@pytest.mark.parametrize("wanted", ["best", "off"])
def test_threads_are_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch, wanted: str):
    monkeypatch.setattr(watch.Watch.__init__, "__defaults__", (300,))
    _, job = bench.attempt("start_threads", bench.place(sandbox=wanted))
    assert (job.state, job.error["code"]) == ("failed", "thread_limit")
    assert "it may have 300" in job.error["message"]


def test_threads_of_other_processes_of_the_child_count(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(watch.Watch.__init__, "__defaults__", (30,))
    _, job = bench.attempt("fork_on", bench.place(sandbox="off"))
    assert (job.state, job.error["code"]) == ("failed", "thread_limit")
