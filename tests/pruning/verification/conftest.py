"""A pruning whose first half is done, ready to be tampered with and verified."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pruning.report.schema import Report, report_json
from pruning.request import DRAFT, DRAFT_REPORT, REFERENCE, FileRef, RunRequest, RunResult
from pruning.run import hand_over, run_kind
from pruning.verification import reference
from pruning.verification.reference import Reference

QUIET = {"checks": False, "ladder": False, "bootstrap": 0}
Prunes = Callable[..., "Half"]


@dataclass
class Half:
    """What the verifying process gets."""

    folder: Path
    request: RunRequest

    def path(self, name: str) -> Path:
        return self.folder / self.request.outputs[name].path

    @property
    def draft(self) -> Report:
        return Report.model_validate_json((self.folder / DRAFT / DRAFT_REPORT).read_bytes())

    @draft.setter
    def draft(self, report: Report) -> None:
        (self.folder / DRAFT / DRAFT_REPORT).write_bytes(report_json(report))

    @property
    def reference(self) -> Reference:
        return reference.read(self.folder / DRAFT / REFERENCE)

    @reference.setter
    def reference(self, changed: Reference) -> None:
        reference.write(changed, self.folder / DRAFT / REFERENCE)

    def sign(self) -> None:
        """As if every file had been written as it now is."""
        draft = self.draft
        for entry in draft.artifacts:
            content = self.path(entry.name).read_bytes()
            entry.sha256, entry.bytes = hashlib.sha256(content).hexdigest(), len(content)
        self.draft = draft

    def verify(self) -> RunResult:
        return run_kind(self.request, self.folder)

    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "out" / "report.json").read_bytes())
        return found


@pytest.fixture(scope="session")
def prunes(digits_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Prunes:
    """The first half by a spec and a model, done once, copied for each caller."""
    done: dict[str, tuple[RunRequest, RunResult, Path]] = {}

    def first(spec: dict[str, Any], model: Path | None = None) -> Half:
        data = {
            role: FileRef(path=str(digits_files / f"{role}.npz"), name=f"{role}.npz")
            for role in ("calibration", "evaluation")
        }
        model = model or digits_files / "digits.onnx"
        key = json.dumps([spec, str(model)])
        if key not in done:
            request = RunRequest.model_validate(
                {
                    "model": FileRef(path=str(model), name="digits.onnx", sha256="0" * 64),
                    "data": data,
                    "spec": {"criterion": {"kind": "magnitude"}, "trust": QUIET} | spec,
                }
            )
            folder = tmp_path_factory.mktemp("first")
            done[key] = request, run_kind(request, folder), folder
        request, result, folder = done[key]
        copied = tmp_path_factory.mktemp("second")
        shutil.copytree(folder, copied, dirs_exist_ok=True)
        aside = copied / "aside"
        return Half(aside, hand_over(request, result, copied, aside))

    return first
