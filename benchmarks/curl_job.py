"""README's job with curl on a machine with other work: four busy processes beside the service.

Starts `secateur up` on a free port, with everything it keeps in a folder that is removed, and four
processes that do nothing but compute. Then what README.md says under "The same with curl", word by
word: a model and its data go up, a job by OBS at 80 % is sent and followed to its end, report and
model come down. The figure: under 60 s from the first byte sent to the last one received.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.common import Skipped, save, table
from benchmarks.service import running
from demo.network import digits, export, train
from demo.network import save as save_arrays
from secateur.config import read_credentials

BUSY = 4
LIMIT = 60.0
MOST = 900
"""Seconds after which the busy processes end by themselves, whatever happens."""

SPEC = {"criterion": {"kind": "obs"}, "target": {"sparsity": 0.8}}
_SPIN = f"import time\nend = time.monotonic() + {MOST}\nwhile time.monotonic() < end: pass"


@contextmanager
def _busy(count: int) -> Iterator[None]:
    """So many processes that compute."""
    processes = [subprocess.Popen([sys.executable, "-c", _SPIN]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


class Curl:
    """The calls of README.md."""

    def __init__(self, url: str, key: str) -> None:
        self.url, self.head = f"{url}/v1", ["-H", f"Authorization: Bearer {key}"]

    def __call__(self, path: str, *arguments: str) -> bytes:
        """The answer to one call, its path under /v1."""
        done = subprocess.run(
            ["curl", "-sfN", f"{self.url}{path}", *self.head, *arguments],
            check=True,
            stdout=subprocess.PIPE,
        )
        return done.stdout

    def json(self, path: str, *arguments: str) -> Any:
        """The same as values."""
        return json.loads(self(path, *arguments))

    def ready(self, kind: str, id: str) -> None:
        """Until intake has read the upload."""
        while (state := self.json(f"/{kind}/{id}")["state"]) == "checking":
            time.sleep(0.2)
        if state != "ready":
            raise RuntimeError(f"{kind} {id}: {state}")


def _job(curl: Curl, folder: Path) -> dict[str, float]:
    """Seconds of each part."""
    begin = time.perf_counter()
    marks = {}

    def mark(name: str) -> None:
        marks[name] = time.perf_counter() - begin - sum(marks.values())

    model = curl.json("/models?name=model.onnx", "--data-binary", f"@{folder / 'model.onnx'}")
    data = curl.json("/datasets?name=train.npz", "--data-binary", f"@{folder / 'train.npz'}")
    curl.ready("models", model["id"])
    curl.ready("datasets", data["id"])
    mark("uploads and their checks")
    request = {"model": model["id"], "data": {"calibration": data["id"]}, "spec": SPEC}
    kind = ("-H", "Content-Type: application/json")
    job = curl.json("/jobs", *kind, "-d", json.dumps(request))["id"]
    curl(f"/jobs/{job}/events", "-H", "Accept: text/event-stream")
    mark("the job")
    if (state := curl.json(f"/jobs/{job}")["state"]) != "succeeded":
        raise RuntimeError(f"the job {state}")
    curl(f"/jobs/{job}/report", "-o", str(folder / "report.json"))
    curl(f"/jobs/{job}/artifacts/model.onnx", "-o", str(folder / "pruned.onnx"))
    mark("downloads")
    return marks


def run() -> bool:
    """Measure, print, save; whether the figure holds."""
    if shutil.which("curl") is None:
        raise Skipped("there is no curl here")
    with tempfile.TemporaryDirectory(prefix="secateur-bench-") as name:
        folder = Path(name)
        calibration, _ = digits(0)
        export(train(calibration, 0), folder / "model.onnx")
        save_arrays(calibration, folder / "train.npz")
        before = os.environ.get("SECATEUR_CONFIG_DIR")
        try:
            with running(folder), _busy(BUSY):
                ((url, key),) = read_credentials().items()
                marks = _job(Curl(url, key), folder)
        finally:
            os.environ.pop("SECATEUR_CONFIG_DIR", None)
            if before is not None:
                os.environ["SECATEUR_CONFIG_DIR"] = before
        report = json.loads((folder / "report.json").read_text())
    seconds = sum(marks.values())
    table([[part, s] for part, s in marks.items()] + [["all", seconds]], ["", "seconds"])
    threads = report["environment"]["threads"]
    held = seconds < LIMIT
    print(f"{threads} threads beside {BUSY} busy processes: figure (under {LIMIT:.0f} s) "
          f"{'held' if held else 'MISSED'}")  # fmt: skip
    save("curl_job", {"parts": marks, "seconds": seconds, "threads": threads, "held": held})
    return held
