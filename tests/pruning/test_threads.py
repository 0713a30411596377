"""How many threads a process gets, from affinity, quotas and settings, and how they wait."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pruning import threads
from pruning.errors import SecateurError
from pruning.verification.clean_process import CleanProcess
from pruning.verification.inference import session_options

ROOT = Path(__file__).resolve().parents[2]


def machine(root: Path, mounts: list[str], own: list[str], files: dict[str, str]) -> Path:
    """A root folder with this process's control groups in it."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/mountinfo").write_text("\n".join(mounts) + "\n")
    (root / "proc/self/cgroup").write_text("\n".join(own) + "\n")
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


V2 = "30 23 0:26 {top} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
V1 = "33 25 0:29 {top} /sys/fs/cgroup/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct"


def test_a_quota_of_version_2_counts(tmp_path: Path):
    root = machine(tmp_path, [V2.format(top="/")], ["0::/"], {"cpu.max": "150000 100000\n"})
    assert threads.quota(root) == 1.5
    assert threads.cores(root) == 1


def test_the_smallest_quota_of_nested_groups_counts(tmp_path: Path):
    files = {
        "a/cpu.max": "200000 100000", "a/b/cpu.max": "50000 100000", "a/b/c/cpu.max": "max 100000",
    }  # fmt: skip
    root = machine(tmp_path, [V2.format(top="/")], ["0::/a/b/c"], files)
    assert threads.quota(root) == 0.5
    assert threads.cores(root) == 1


@pytest.mark.parametrize("own", ["/docker/abc", "/"])
def test_a_container_that_shows_its_own_group_at_the_top(tmp_path: Path, own: str):
    root = machine(
        tmp_path, [V2.format(top="/docker/abc")], [f"0::{own}"], {"cpu.max": "300000 100000"}
    )
    assert threads.quota(root) == 3


def test_a_quota_of_version_1_counts(tmp_path: Path):
    folder = "cpu,cpuacct/docker/abc"
    root = machine(
        tmp_path, [V1.format(top="/")], ["5:memory:/x", "4:cpu,cpuacct:/docker/abc"],
        {f"{folder}/cpu.cfs_quota_us": "250000", f"{folder}/cpu.cfs_period_us": "100000",
         "cpu,cpuacct/cpu.cfs_quota_us": "-1", "cpu,cpuacct/cpu.cfs_period_us": "100000"},
    )  # fmt: skip
    assert threads.quota(root) == 2.5


def test_without_a_quota_affinity_alone_counts(tmp_path: Path):
    root = machine(tmp_path, [V2.format(top="/")], ["0::/"], {"cpu.max": "max 100000"})
    assert threads.quota(root) is None
    assert threads.quota(tmp_path / "nothing") is None
    assert threads.cores(root) == len(threads.cpus())


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity here")
def test_affinity_counts_and_not_the_machines_processors():
    code = (
        "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
        "from pruning import threads; print(threads.cores(), threads.share(2))"
    )
    clean = {k: v for k, v in os.environ.items() if k not in (threads.OWN, "OMP_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=clean, check=True, capture_output=True
    )
    assert done.stdout.split() == [b"1", b"1"]


def test_our_own_variable_wins_over_that_of_openmp():
    both = {"SECATEUR_THREADS": "3", "OMP_NUM_THREADS": "5"}
    assert threads.share(2, both) == 3
    assert threads.share(2, {"OMP_NUM_THREADS": "5,2"}) == 5
    assert threads.asked({"OMP_NUM_THREADS": "nonsense"}) is None
    assert threads.share(1000, {}) == 1
    assert threads.share(1, both | {"OMP_THREAD_LIMIT": "2"}) == 2


@pytest.mark.parametrize("wrong", ["0", "-1", "two", "1.5"])
def test_a_wrong_number_of_ours_is_refused(wrong: str):
    with pytest.raises(SecateurError) as refused:
        threads.share(1, {"SECATEUR_THREADS": wrong})
    assert refused.value.where == "SECATEUR_THREADS"


def test_every_pool_gets_the_number_and_threads_sleep():
    found = threads.variables(3, {})
    for name in ("OMP", "MKL", "OPENBLAS", "RAYON"):
        assert found[f"{name}_NUM_THREADS"] == "3"
    assert found["OMP_WAIT_POLICY"] == "PASSIVE"
    assert found["KMP_BLOCKTIME"] == "0"


def test_what_a_user_says_of_waiting_goes_on():
    found = threads.variables(2, {"OMP_WAIT_POLICY": "ACTIVE", "GOMP_SPINCOUNT": "9"})
    assert found["OMP_WAIT_POLICY"] == "ACTIVE"
    assert found["GOMP_SPINCOUNT"] == "9"
    assert "KMP_BLOCKTIME" not in found
    assert threads.variables(2, {"KMP_BLOCKTIME": "200"})["KMP_BLOCKTIME"] == "200"


def test_the_verifying_process_waits_asleep_with_the_threads_of_the_request():
    with CleanProcess(2) as process:
        raw = b""
        while not raw:  # the kernel has not filled it in the first instant
            raw = Path(f"/proc/{process._process.pid}/environ").read_bytes()
    environ = dict(part.split(b"=", 1) for part in raw.split(b"\0") if b"=" in part)
    assert environ[b"OMP_NUM_THREADS"] == b"2"
    assert environ[b"OMP_WAIT_POLICY"] == os.environ.get("OMP_WAIT_POLICY", "PASSIVE").encode()


def test_onnxruntimes_threads_are_as_many_and_do_not_spin():
    options = session_options(2)
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (2, 1)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_the_module_is_free_of_what_it_prepares():
    code = (
        "import json, sys; from pruning import threads; threads.prepare(1)\n"
        "print(json.dumps(sorted({'torch', 'numpy'} & set(sys.modules))))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)
    assert json.loads(done.stdout) == []
