"""What a child gets: limits, an empty environment, no privileges to gain, its own session."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from bench import ROOT, Bench, alive, until

from pruning import threads
from worker import processes, sandbox
from worker.launch import __file__ as LAUNCHER
from worker.workplace import discard

LIMITS = ["RLIMIT_CORE", "RLIMIT_CPU", "RLIMIT_FSIZE", "RLIMIT_NOFILE", "RLIMIT_AS", "RLIMIT_DATA"]
LIMITS += ["RLIMIT_MSGQUEUE"]


@pytest.fixture(params=["best", "off"])
def confession(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> dict:
    monkeypatch.setenv("SECATEUR_REDIS_URL", "redis://:secret@broker:6379/0")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    place = bench.place(child_memory_bytes=1 << 30, wall_seconds=100, sandbox=request.param)
    _, job = bench.attempt("confess", place, limits=LIMITS)
    assert job.state == "succeeded", job.error
    return job.summary | {"folder": str(place.house.folder), "level": place.sandbox.level}


def test_nothing_of_the_workers_environment_reaches_the_child(confession: dict):
    environ = confession["environ"]
    assert "secret" not in json.dumps(environ)
    assert environ["CUDA_VISIBLE_DEVICES"] == "3"
    assert environ["OMP_NUM_THREADS"] == "1"
    assert environ["HOME"].startswith(confession["folder"])
    assert environ["TMPDIR"] == environ["HOME"] + "/tmp"
    assert confession["cwd"] == environ["HOME"]


def test_children_keep_freed_memory_unless_the_operator_says_otherwise(tmp_path: Path):
    own = sandbox.environment(tmp_path, 1, {})
    assert own["MALLOC_MMAP_THRESHOLD_"] == str(128 << 20)
    assert own["MALLOC_TRIM_THRESHOLD_"] == str(256 << 20)
    said = sandbox.environment(tmp_path, 1, {"MALLOC_TRIM_THRESHOLD_": "0"})
    assert said["MALLOC_TRIM_THRESHOLD_"] == "0"


def test_the_kernel_ends_a_child_before_the_service(bench: Bench):
    place = bench.place()
    place.settings = place.settings.model_copy(update={"warm_children": True})
    place.prepare()
    child = place.child()

    def scores() -> set[str]:  # bubblewrap's own processes keep theirs
        group = processes.of_group(child.pid)
        return {Path(f"/proc/{pid}/oom_score_adj").read_text() for pid in group}

    until(lambda: "500\n" in scores(), what="the score")
    assert Path("/proc/self/oom_score_adj").read_text() != "500\n"
    discard(child)


def test_the_child_leads_its_own_session_and_group(confession: dict):
    # bubblewrap leads them, and its child sees neither.
    leads = confession["level"] != "bubblewrap"
    assert confession["leads"] == [leads, leads]


def test_limits_are_set_and_can_not_be_raised(confession: dict):
    limits = confession["limits"]
    assert limits["RLIMIT_CORE"] == [0, 0]
    processor_seconds = 100 * (threads.cores() + 1) + 60
    assert limits["RLIMIT_CPU"] == [processor_seconds, processor_seconds]
    assert limits["RLIMIT_NOFILE"] == [1024, 1024]
    top = (1 << 30) + sandbox.imported_address_space()
    assert limits["RLIMIT_AS"] == [top, top]
    private = (5 << 30,) * 2
    assert tuple(limits["RLIMIT_DATA"]) == private
    assert limits["RLIMIT_MSGQUEUE"] == [0, 0]
    soft, hard = limits["RLIMIT_FSIZE"]
    assert soft == hard > 0


def test_no_new_privileges_private_files_and_no_open_descriptors(confession: dict):
    assert confession["status"]["NoNewPrivs"] == "1"
    assert confession["umask"] == 0o077
    assert confession["stdin"] == "/dev/null"
    # The listing itself needs one more, and Landlock's rule on /proc/self one that stays.
    assert set(confession["descriptors"]) - {0, 1, 2, confession["events"]} <= {3, 4, 5, 6}
    assert len(confession["descriptors"]) == 5 + (confession["level"] != "limits")
    assert confession["inputs"] == {"model": "0o100400", "calibration": "0o100400"}


def test_signals_that_the_worker_ignores_are_not_ignored_by_the_child(confession: dict):
    assert int(confession["status"]["SigBlk"], 16) == 0
    ignored = int(confession["status"]["SigIgn"], 16)
    assert not ignored & 1 << (signal.SIGTERM - 1)


def test_a_child_dies_with_the_process_that_started_it(tmp_path: Path):
    limits = sandbox.Limits(threads=1, cpu_seconds=60, file_bytes=1 << 20)
    starter = (
        "import subprocess, sys, time\n"
        "from worker import sandbox\n"
        f"limits, slot = sandbox.{limits!r}, sandbox.Path({str(tmp_path)!r})\n"
        "command = sandbox.Sandbox().command(['/bin/sleep', '600'], limits, slot)\n"
        "print(subprocess.Popen(command, start_new_session=True).pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", starter], stdout=subprocess.PIPE, cwd=ROOT)
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    until(lambda: b"sleep" in Path(f"/proc/{pid}/cmdline").read_bytes())
    process.kill()
    process.wait()
    process.stdout.close()
    until(lambda: not alive(pid), what="the child's death")


def test_a_child_whose_parent_is_gone_already_does_not_start():
    plan = json.dumps({"parent": os.getpid() + 1})
    ended = subprocess.run([sys.executable, "-I", "-S", LAUNCHER, plan, "/bin/true"], check=False)
    assert ended.returncode == 125
