"""What one attempt is asked to do, and what it hands back: the contents of job.json. Torch-free."""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pruning.formats.limits import Limits
from pruning.report.schema import ArtifactEntry

Role = Literal["calibration", "training", "evaluation"]
JobKind = Literal["prune", "check_model", "check_dataset"]

CHECKPOINTS = "checkpoints"
"""Sub-folder of the job folder: what the loop writes and resumes from."""

OUT = "out"
"""Sub-folder of the job folder with the artifacts; it exists only once all of them are complete."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid")


class FileRef(_Record):
    """An input file."""

    path: str = Field(min_length=1, description="Relative to the job folder, or absolute.")
    name: str = Field(description="Display name: what the user calls the file. Never a path.")
    sha256: str | None = Field(
        default=None, description="Digest, for the report; not checked again."
    )


class RunRequest(_Record):
    """One attempt.

    `prune` needs `model` and `data.calibration`; `check_model` needs `model`; `check_dataset`
    needs one file under `data`, whatever its role.
    """

    kind: JobKind = "prune"
    model: FileRef | None = None
    data: dict[Role, FileRef] = {}
    spec: dict[str, Any] = {}
    limits: Limits = Limits()
    threads: int = Field(
        default=1, ge=1, description="Threads of one torch or onnxruntime operation."
    )
    device: Literal["cpu", "cuda", "auto"] = "cpu"

    @model_validator(mode="after")
    def _inputs_fit_kind(self) -> Self:
        if self.kind != "check_dataset" and self.model is None:
            raise ValueError(f"{self.kind} needs model")
        if self.kind == "prune" and "calibration" not in self.data:
            raise ValueError("prune needs data.calibration")
        if self.kind == "check_dataset" and len(self.data) != 1:
            raise ValueError("check_dataset needs one file under data")
        return self


class Rejection(_Record):
    """A gate that the result missed. The artifacts are kept."""

    code: Literal["gate_missed"] = "gate_missed"
    message: str
    where: str
    hint: str | None = None


class RunResult(_Record):
    """What an attempt hands back.

    `facts` is set by the check kinds. A `prune` sets `artifacts` (files in `out/`, the reports
    included), `summary` (a few numbers for lists) and, where a gate was missed, `rejected`.
    """

    facts: dict[str, Any] | None = None
    artifacts: list[ArtifactEntry] = []
    summary: dict[str, Any] = {}
    rejected: Rejection | None = None
