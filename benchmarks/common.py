"""What every benchmark shares: the machine's description and where results go."""

import json
import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pruning.threads import cores


class Skipped(Exception):  # noqa: N818 - no error: what a benchmark needs is not here
    """Why a benchmark, or its figures, were not measured, and what to do about it."""


RESULTS = Path(__file__).parent / "results"


def processor() -> str:
    """The processor's name as the kernel gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def machine() -> dict[str, Any]:
    """Cores, processor and the versions that matter for the numbers."""
    packages = ("torch", "numpy", "onnx", "onnxruntime", "celery", "sqlalchemy")
    return {
        "processor": processor(),
        "cores": cores(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in packages},
    }


def save(name: str, results: dict[str, Any]) -> None:
    """Write `results/<name>.json` and say where."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    stamp = datetime.now(UTC).strftime("%Y-%m-%d")
    document = {"benchmark": name, "date": stamp, "machine": machine(), **results}
    path.write_text(json.dumps(document, indent=2) + "\n")
    print(f"written to {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")


def table(rows: list[list[Any]], header: list[str]) -> None:
    """Print aligned columns."""
    text = [header, *[[f"{c:.4g}" if isinstance(c, float) else str(c) for c in r] for r in rows]]
    widths = [max(len(row[i]) for row in text) for i in range(len(header))]
    for row in text:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))


def turns(runs: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every run in every round, in alternating order; a first round warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name in list(runs) if number % 2 else list(reversed(runs)):
            begin = time.perf_counter()
            runs[name]()
            if number:
                seconds[name].append(time.perf_counter() - begin)
    return seconds
