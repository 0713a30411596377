"""`secateur prune --local` computes with as many threads as it is told, and its report says so."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.files import network, npz, samples

SPEC = "criterion: {kind: magnitude}\ntrust: {checks: false, ladder: false, bootstrap: 0}\n"


@pytest.mark.parametrize(
    ("said", "threads"),
    [({"SECATEUR_THREADS": "2", "OMP_NUM_THREADS": "5"}, 2), ({"OMP_NUM_THREADS": "3"}, 3)],
)
def test_local_uses_and_reports_the_threads_it_is_told(
    tmp_path: Path, said: dict[str, str], threads: int
) -> None:
    (tmp_path / "net.onnx").write_bytes(network())
    (tmp_path / "data.npz").write_bytes(npz(samples()))
    (tmp_path / "spec.yaml").write_text(SPEC)
    clean = {
        k: v for k, v in os.environ.items() if k not in ("SECATEUR_THREADS", "OMP_NUM_THREADS")
    }
    command = ["prune", "net.onnx", "--data", "data.npz", "--spec", "spec.yaml", "--local"]
    done = subprocess.run(
        [sys.executable, "-m", "secateur", *command, "--out", "out"], cwd=tmp_path,
        env=clean | said, check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    environment = json.loads((tmp_path / "out" / "report.json").read_text())["environment"]
    assert environment["threads"] == environment["onnxruntime_threads"] == threads


def test_a_wrong_number_of_threads_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    for name in ("net.onnx", "data.npz"):
        (tmp_path / name).write_bytes(b"")
    command = ["prune", "net.onnx", "--data", "data.npz", "--local"]
    done = subprocess.run(
        [sys.executable, "-m", "secateur", *command], cwd=tmp_path,
        env=os.environ | {"SECATEUR_THREADS": "many"}, check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert "SECATEUR_THREADS" in done.stderr
