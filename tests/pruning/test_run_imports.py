"""Each kind of run imports what it needs: checks are what an upload waits for."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
CODE = """
import sys
from pathlib import Path
from pruning.request import FileRef, RunRequest
from pruning.run import run
kind, path = sys.argv[1:]
ref = FileRef(path=path, name="upload")
files = {"model": ref} if kind == "check_model" else {"data": {"calibration": ref}}
assert run(RunRequest(kind=kind, **files), Path()).facts
heavy = {"torch", "onnx", "onnxruntime", "pruning.prune_files"}
print(*sorted(heavy & set(sys.modules)))
"""


@pytest.mark.parametrize(
    ("kind", "name", "imported"),
    [("check_dataset", "calibration.npz", ""), ("check_model", "digits.onnx", "onnx torch")],
)
def test_a_check_imports_what_it_needs_and_no_more(
    digits_files: Path, kind: str, name: str, imported: str
):
    run = subprocess.run(
        [sys.executable, "-c", CODE, kind, str(digits_files / name)],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert run.stdout.strip() == imported


def test_magnitude_does_not_import_the_compiler():
    code = (
        "import sys, torch, pruning\n"
        "x, y = torch.randn(60, 6), torch.arange(60) % 3\n"
        "net = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))\n"
        "pruning.prune(net, (x, y), {'criterion': {'kind': 'magnitude'}})\n"
        "print('torch._dynamo' in sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert run.stdout.strip() == "False"
