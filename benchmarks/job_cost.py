"""What a job on a network of 2,368 weights takes, from the command to the files.

`secateur prune` at 80 % with the defaults of everything else, by magnitude and by OBS: with
`--local`, and through a service that is running. Whole commands, started anew each time, on a model
of new bytes, so that reading, uploads and checks are paid each time. The first command of each kind
stands apart: it finds no files in memory. CPU time is that of the command and what it started, not
of the service. The figures, medians on a quiet machine of two cores: within LIMITS.
"""

import json
import resource
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import save, table
from benchmarks.service import running, seconds, variant
from demo.network import digits, export, train
from demo.network import save as save_arrays

ROUNDS = 3
LIMITS = {"magnitude": 5.0, "obs": 12.0}
"""Seconds that a user waits at most."""

WAYS = {"local": ["--local"], "service": []}


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _job(
    folder: Path, environment: dict[str, str], criterion: str, way: str, number: int
) -> dict[str, Any]:
    """One command: its seconds, CPU seconds, and those of the phases by the report."""
    model = variant(folder / "digits.onnx", number)
    out = folder / f"pruned-{number}"
    command = ["prune", str(model), "--data", str(folder / "train.npz"), "--criterion", criterion]
    before = _cpu()
    wall = seconds([*command, "--sparsity", "0.8", "--out", str(out), *WAYS[way]], environment)
    timings = json.loads((out / "report.json").read_text())["timings"]
    return {"seconds": wall, "cpu": _cpu() - before, "phases": timings}


def run() -> bool:
    """Measure, print, save; whether the figures hold."""
    with tempfile.TemporaryDirectory(prefix="secateur-bench-") as name:
        folder = Path(name)
        calibration, _ = digits(0)
        export(train(calibration, 0), folder / "digits.onnx")
        save_arrays(calibration, folder / "train.npz")
        with running(folder) as environment:
            return _run(folder, environment)


def _run(folder: Path, environment: dict[str, str]) -> bool:
    rows, results, held, number = [], [], True, 0
    for criterion, limit in LIMITS.items():
        for way in WAYS:
            found = []
            for _ in range(ROUNDS + 1):
                number += 1
                found.append(_job(folder, environment, criterion, way, number))
            first, rest = found[0], found[1:]
            wall, cpu = (statistics.median(r[k] for r in rest) for k in ("seconds", "cpu"))
            held &= wall <= limit
            phases = {p: statistics.median(r["phases"][p] for r in rest) for p in first["phases"]}
            results.append({
                "criterion": criterion, "way": way, "first_seconds": first["seconds"],
                "seconds": wall, "cpu_seconds": cpu, "phases": phases, "limit": limit,
            })  # fmt: skip
            work = sum(s for phase, s in phases.items() if "." not in phase)
            rows.append([criterion, way, first["seconds"], wall, limit, cpu, work])
    table(rows, ["criterion", "way", "first s", "s", "at most", "CPU s", "phases s"])
    print(f"figures {'held' if held else 'MISSED'}")
    save("job_cost", {"rounds": ROUNDS, "jobs": results, "held": held})
    return held
