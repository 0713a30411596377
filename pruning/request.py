"""What one attempt is asked to do, and what it hands back: the contents of job.json. Torch-free."""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pruning.formats.limits import Limits
from pruning.report.schema import ArtifactEntry

Role = Literal["calibration", "training", "evaluation"]
JobKind = Literal["prune", "verify", "check_model", "check_dataset"]

CHECKPOINTS = "checkpoints"
"""Sub-folder of the job folder: what the loop writes and resumes from."""

OUT = "out"
"""Sub-folder of the job folder with the artifacts; it exists only once all of them are complete."""

DRAFT = "draft"
"""Sub-folder of the job folder with what `prune` hands to `verify` beside the artifacts."""

DRAFT_REPORT, REFERENCE = "report.json", "reference.safetensors"
"""The files in it: the report so far; the masks, and the outputs of the network in memory."""

BESIDE = ("masks", "sparse", "point")
"""Formats of the artifacts that are not the pruned model itself."""


def output_path(name: str, form: str) -> str:
    """Where a request of the kind `verify` has an artifact, relative to the job folder.

    The model's files lie by themselves, so that they are read as an upload is.
    """
    return f"outputs/{'beside' if form in BESIDE else 'model'}/{name}"


REPORT_BYTES = 64 << 20
"""The largest draft of a report that is handed on, and parsed."""


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

    `prune` needs `model` and `data.calibration`, and so does `verify`, which also needs the
    `outputs` of a `prune` and its folder `draft`; `check_model` needs `model`; `check_dataset`
    needs one file under `data`, whatever its role.
    """

    kind: JobKind = "prune"
    model: FileRef | None = None
    rewind_to: FileRef | None = Field(
        default=None, description="An earlier checkpoint of the model, for schedules that take one."
    )
    data: dict[Role, FileRef] = {}
    spec: dict[str, Any] = {}
    outputs: dict[str, FileRef] = Field(
        default={}, description="The files to verify by their names, at `output_path`."
    )
    limits: Limits = Limits()
    threads: int = Field(
        default=1, ge=1, description="Threads of one torch or onnxruntime operation."
    )
    device: Literal["cpu", "cuda", "auto"] = "cpu"

    @model_validator(mode="after")
    def _inputs_fit_kind(self) -> Self:
        if self.kind != "check_dataset" and self.model is None:
            raise ValueError(f"{self.kind} needs model")
        if self.kind in ("prune", "verify") and "calibration" not in self.data:
            raise ValueError(f"{self.kind} needs data.calibration")
        if (self.kind == "verify") != bool(self.outputs):
            raise ValueError("verify, and nothing else, needs outputs")
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

    `facts` is set by the check kinds. A `prune` sets `artifacts` (files in `out/` that nobody has
    verified). A `verify` sets `artifacts` (the reports, in its own `out/`), `summary` (a few
    numbers for lists) and, where a gate was missed, `rejected`.
    """

    facts: dict[str, Any] | None = None
    artifacts: list[ArtifactEntry] = []
    summary: dict[str, Any] = {}
    rejected: Rejection | None = None
