"""Only children import torch."""

import subprocess
import sys

from bench import ROOT

PARENT = ["app", "tasks", "control", "supervisor", "station", "answer", "relay", "reaper"]


def test_the_worker_and_control_processes_import_no_torch():
    modules = ", ".join(f"worker.{name}" for name in PARENT)
    heavy = "{'torch', 'numpy', 'onnx', 'onnxruntime', 'matplotlib'}"
    code = f"import sys, {modules}; print(sorted({heavy} & set(sys.modules)))"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert run.stdout.strip() == "[]"
