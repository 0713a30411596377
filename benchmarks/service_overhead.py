"""What the service adds to a job: `secateur prune` through it, beside `secateur prune --local`.

Both are whole processes, started the same way on the same files, in turn. Every repetition uses a
model of new bytes (its doc string), so that upload, intake and checks are paid each time. The
figure: the difference of the medians is under 5 s. The split comes from the job's own timestamps.
"""

import json
import statistics
import tempfile
from pathlib import Path

from benchmarks.common import save, table
from benchmarks.service import running, seconds, variant
from demo.network import digits, export, train
from demo.network import save as save_arrays
from secateur import Client

REPETITIONS = 5
LIMIT = 5.0


def _split(client: Client, name: str, wall: float, folder: Path) -> dict[str, float]:
    """Where the wall time of one run through the service went, in seconds."""
    job = next(j for j in client.jobs() if j.name == name)
    model = client.model(job.model)
    work = sum(json.loads((folder / "report.json").read_text())["timings"].values())
    waiting = (job.started_at - job.created_at).total_seconds()
    running = (job.finished_at - job.started_at).total_seconds()
    checking = (model.updated_at - model.created_at).total_seconds()
    return {
        "check of the model": checking,
        "waiting in the queue": waiting,
        "attempt beyond the work": running - work,
        "the work itself": work,
        "client: start, transfers, following": wall - checking - waiting - running,
    }


def run() -> bool:
    """Measure, print, save; whether the figure holds."""
    with tempfile.TemporaryDirectory(prefix="secateur-bench-") as name:
        return _run(Path(name))


def _run(folder: Path) -> bool:
    calibration, evaluation = digits(0)
    export(train(calibration, 0), folder / "digits.onnx")
    save_arrays(calibration, folder / "train.npz")
    save_arrays(evaluation, folder / "test.npz")
    with running(folder) as environment:
        rows = [_pair(folder, environment, n) for n in range(REPETITIONS + 1)][1:]
    medians = {k: statistics.median(r[k] for r in rows) for k in rows[0]}
    overhead = medians["service"] - medians["local"]
    table([[k, v] for k, v in medians.items()], ["median of " + str(REPETITIONS), "seconds"])
    held = overhead < LIMIT
    print(
        f"the service adds {overhead:.2f} s (ratio {medians['service'] / medians['local']:.2f}): "
        f"figure (under {LIMIT:.0f} s) {'held' if held else 'MISSED'}"
    )
    save(
        "service_overhead",
        {"repetitions": REPETITIONS, "medians": medians, "overhead": overhead, "rows": rows,
         "held": held},
    )  # fmt: skip
    return held


def _pair(folder: Path, environment: dict[str, str], number: int) -> dict[str, float]:
    """One run each way; the first pair of all warms up and is not counted."""
    model = variant(folder / "digits.onnx", number)
    common = [
        "prune", str(model), "--data", str(folder / "train.npz"), "--evaluation",
        str(folder / "test.npz"), "--criterion", "obd", "--sparsity", "0.85",
    ]  # fmt: skip
    local = seconds([*common, "--local", "--out", str(folder / f"local-{number}")], environment)
    out, name = folder / f"service-{number}", f"repetition {number}"
    service = seconds([*common, "--name", name, "--out", str(out)], environment)
    with Client() as client:
        return {"local": local, "service": service, **_split(client, name, service, out)}
