"""GET of a job beside /healthz of the same process, which is a bare route: no key, no database.

In turns, over 1, 8 and 32 connections that each ask again as soon as they were answered; first
while nothing runs, then while the job that is asked for runs. The figures: at least half of the
bare route's rate, and 99 of 100 answers within 100 ms while the job runs.
"""

import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.common import save, table
from benchmarks.http_load import Measured, repeat
from benchmarks.service import running
from demo.network import digits, export, train
from demo.network import save as save_arrays
from secateur import Client

ROUNDS = 5
SECONDS = 2.0
CONNECTIONS = (1, 8, 32)
LEAST_SHARE = 0.5
LONGEST = 0.1

LONG = {
    "criterion": {"kind": "magnitude"},
    "target": {"sparsity": 0.8},
    "schedule": {"kind": "rounds", "rounds": 20, "rewind": {"kind": "learning_rate"}},
    "recovery": {"kind": "fine_tune", "epochs": 1_000, "batch_size": 16},
    "trust": {"checks": False, "ladder": False, "bootstrap": 0},
}
"""A job that goes on for as long as it is let."""


@contextmanager
def service_with_inputs() -> Iterator[tuple[Client, str, str, str, str]]:
    """A client, its URL and key, and the ids of a model and of data that are ready."""
    with tempfile.TemporaryDirectory(prefix="secateur-bench-") as name:
        folder = Path(name)
        calibration, _ = digits(0)
        export(train(calibration, 0), folder / "digits.onnx")
        save_arrays(calibration, folder / "train.npz")
        with running(folder) as environment, Client() as client:
            credentials = Path(environment["SECATEUR_CONFIG_DIR"]) / "credentials.json"
            key = json.loads(credentials.read_text())[client.url]
            model = client.wait_ready(client.upload_model(folder / "digits.onnx"))
            data = client.wait_ready(client.upload_dataset(folder / "train.npz"))
            yield client, client.url, key, model.id, data.id


def started(client: Client, model: str, data: str) -> str:
    """The id of a job that runs, and has said so."""
    job = client.submit(model, data, LONG)
    while client.job(job.id).state == "queued":
        time.sleep(0.1)
    time.sleep(5)  # the process of the job is past its imports
    return str(job.id)


def _in_turns(url: str, key: str, path: str, connections: int) -> dict[str, list[Measured]]:
    asked = {"bare route": ("/healthz", None), "job": (path, key)}
    found: dict[str, list[Measured]] = {name: [] for name in asked}
    for number in range(ROUNDS):
        for name in list(asked) if number % 2 else reversed(list(asked)):
            one, secret = asked[name]
            found[name].append(
                asyncio.run(repeat(url, one, secret, connections=connections, seconds=SECONDS))
            )
    return found


def _rows(when: str, url: str, key: str, path: str) -> list[dict[str, Any]]:
    rows = []
    for connections in CONNECTIONS:
        found = _in_turns(url, key, path, connections)
        for name, rounds in found.items():
            if any(set(one.statuses) != {200} for one in rounds):
                raise RuntimeError(f"not all answers were 200: {[r.statuses for r in rounds]}")
            rate = statistics.median(one.rate for one in rounds)
            bare = statistics.median(one.rate for one in found["bare route"])
            rows.append(
                {
                    "when": when,
                    "connections": connections,
                    "route": name,
                    "rate": rate,
                    "share": rate / bare,
                    "median_ms": 1e3 * statistics.median(one.quantile(0.5) for one in rounds),
                    "p99_ms": 1e3 * statistics.median(one.quantile(0.99) for one in rounds),
                }
            )
    return rows


def run() -> bool:
    """Measure, print, save; whether the figures hold."""
    with service_with_inputs() as (client, url, key, model, data):
        first = client.submit(model, data, {"criterion": {"kind": "magnitude"}})
        client.wait(first.id)
        rows = _rows("nothing runs", url, key, f"/v1/jobs/{first.id}")
        job = started(client, model, data)
        rows += _rows("the job runs", url, key, f"/v1/jobs/{job}")
        client.cancel(job)
    table([list(row.values()) for row in rows], list(rows[0]))
    polled = [row for row in rows if row["route"] == "job"]
    share = min(row["share"] for row in polled)
    p99 = max(row["p99_ms"] for row in polled if row["when"] == "the job runs")
    held = share >= LEAST_SHARE and p99 < LONGEST * 1e3
    print(
        f"least share of the bare route {share:.2f}, p99 while the job runs {p99:.0f} ms: figures "
        f"(at least {LEAST_SHARE}, under {LONGEST * 1e3:.0f} ms) {'held' if held else 'MISSED'}"
    )
    save("polling", {"rounds": ROUNDS, "seconds": SECONDS, "rows": rows, "held": held})
    return held
