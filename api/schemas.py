"""What the API takes and gives as JSON: pydantic models with examples, shown in /openapi.json."""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator

from pruning.facts import DatasetFacts, ModelFacts

T = TypeVar("T")

_WHEN = "2026-03-01T12:00:00Z"
_SHA = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_MODEL_ID = "mdl_06f3k2m5q7a2c4e6g7i2k4m6o7"
_DATASET_ID = "ds_06f3k2n5q7a2c4e6g7i2k4m6o7"
_JOB_ID = "job_06f3k2p5q7a2c4e6g7i2k4m6o7"
_SPEC: dict[str, JsonValue] = {"criterion": {"kind": "obs"}, "target": {"sparsity": 0.85}}


_DEEPEST_SPEC = 20


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


UploadState = Literal["checking", "ready", "rejected"]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class FieldError(BaseModel):
    """One wrong field."""

    where: str
    message: str


class Problem(BaseModel):
    """RFC 9457 problem+json: the shape of every error."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "type": "/problems/not_found",
                "title": "No such thing here",
                "status": 404,
                "code": "not_found",
                "detail": "There is nothing at this path.",
                "instance": "/v1/nothing",
                "hint": "/openapi.json lists every path.",
                "request_id": "req_06f3k2p5q7a2c4e6g7i2k4m6o7",
            }
        }
    )

    type: str = Field(description="A stable relative URI: /problems/ and the code.")
    title: str
    status: int
    code: str = Field(description="Stable; programs should branch on this.")
    detail: str
    instance: str
    where: str | None = Field(None, description="The field, layer, tensor or header.")
    hint: str | None = Field(None, description="What to do next.")
    errors: list[FieldError] | None = Field(None, description="All wrong fields.")
    details: dict[str, Any] | None = None
    request_id: str


class Failure(BaseModel):
    """Why a resource was rejected or a job failed."""

    code: str
    message: str
    where: str | None = None
    hint: str | None = None
    details: dict[str, Any] | None = None


class Page(BaseModel, Generic[T]):
    """One page of a list, newest first; `next_cursor` is null on the last."""

    data: list[T]
    next_cursor: str | None = None


class _Upload(BaseModel):
    id: str
    name: str
    state: UploadState
    bytes: int
    sha256: str
    error: Failure | None = None
    created_at: datetime
    updated_at: datetime


class ModelFile(BaseModel):
    """One of several files of a model."""

    path: str
    bytes: int
    sha256: str


class Model(_Upload):
    """An uploaded network; immutable."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": _MODEL_ID,
                "object": "model",
                "name": "lenet.onnx",
                "state": "checking",
                "format": None,
                "bytes": 178110,
                "sha256": _SHA,
                "facts": None,
                "error": None,
                "created_at": _WHEN,
                "updated_at": _WHEN,
            }
        }
    )

    object: Literal["model"] = "model"
    format: str | None = None
    files: list[ModelFile] = Field([], description="The files, if it was uploaded as several.")
    facts: ModelFacts | None = None


class Dataset(_Upload):
    """Uploaded arrays; immutable."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": _DATASET_ID,
                "object": "dataset",
                "name": "digits.npz",
                "state": "ready",
                "format": "npz",
                "bytes": 460000,
                "sha256": _SHA,
                "facts": {
                    "format": "npz",
                    "samples": 1437,
                    "arrays": [{"name": "x", "dtype": "float32", "shape": [1437, 1, 8, 8]}],
                    "target": {"dtype": "int64", "shape": [1437], "classes": 10},
                    "bytes": 379368,
                },
                "error": None,
                "created_at": _WHEN,
                "updated_at": _WHEN,
            }
        }
    )

    object: Literal["dataset"] = "dataset"
    format: str | None = None
    facts: DatasetFacts | None = None


class JobData(_Request):
    """Dataset ids by role. Without `evaluation`, a seeded share of `calibration` is held out."""

    calibration: str
    training: str | None = None
    evaluation: str | None = None

    def roles(self) -> dict[str, str]:
        """The roles that were given."""
        return self.model_dump(exclude_none=True)


class PlanRequest(_Request):
    """A job to be priced and checked, without running it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"model": _MODEL_ID, "data": {"calibration": _DATASET_ID}, "spec": _SPEC}]
        }
    )

    model: str
    data: JobData
    spec: dict[str, Any] | None = Field(None, description="The spec; every field has a default.")
    rewind_to: str | None = Field(
        None,
        description="A ready model, an earlier checkpoint of the same network: for schedule rounds "
        "with rewind to weights, and at_initialisation. Refused for others.",
    )

    @field_validator("spec")
    @classmethod
    def _is_flat(cls, spec: dict[str, Any] | None) -> dict[str, Any] | None:
        # Validators and serialisers recurse; what is deeper than any spec does not reach them.
        level: list[Any] = [spec]
        for _ in range(_DEEPEST_SPEC):
            level = [inner for outer in level for inner in _inside(outer)]
        if level:
            raise ValueError(f"A spec is not nested more than {_DEEPEST_SPEC} deep")
        return spec


class JobRequest(PlanRequest):
    """A job to run."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": _MODEL_ID,
                    "data": {"calibration": _DATASET_ID},
                    "spec": _SPEC,
                    "name": "lenet at 85 %",
                    "priority": 5,
                }
            ]
        }
    )

    name: Annotated[str, Field(max_length=200)] | None = None
    priority: int = Field(5, ge=0, le=9, description="9 is the most urgent.")


class Progress(BaseModel):
    """How far the running phase is, `done` of `total` units, and how far the whole job."""

    phase: str | None = None
    done: float = 0
    total: float = 0
    message: str = ""
    fraction: float | None = Field(
        None, description="Of the whole job, 0 to 1; it never falls within an attempt."
    )
    elapsed_seconds: float | None = Field(None, description="Since the attempt began.")
    eta_seconds: float | None = Field(
        None, description="Until the job's end, as estimated; null while that is not known."
    )


class Artifact(BaseModel):
    """One output file."""

    name: str
    bytes: int
    sha256: str
    format: str
    url: str


class Attempt(BaseModel):
    """One try of a job by one worker."""

    number: int
    worker: str
    started_at: datetime
    finished_at: datetime | None = None
    outcome: str | None = Field(None, description="How it ended; null while it runs.")
    sandbox: str | None = Field(
        None, description="The level its process ran under: bubblewrap, landlock or limits."
    )


class Job(BaseModel):
    """One run of a spec on a model."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": _JOB_ID,
                "object": "job",
                "name": "lenet at 85 %",
                "state": "running",
                "phase": "scoring",
                "progress": {
                    "phase": "scoring",
                    "done": 3,
                    "total": 10,
                    "message": "",
                    "fraction": 0.31,
                    "elapsed_seconds": 14.2,
                    "eta_seconds": 32.0,
                },
                "model": _MODEL_ID,
                "rewind_to": None,
                "data": {"calibration": _DATASET_ID},
                "spec": _SPEC,
                "attempt": 1,
                "attempts": [
                    {
                        "number": 1,
                        "worker": "host:7.0:12",
                        "started_at": _WHEN,
                        "finished_at": None,
                        "outcome": None,
                        "sandbox": "bubblewrap",
                    }
                ],
                "priority": 5,
                "cancel_requested": False,
                "retry_of": None,
                "error": None,
                "summary": None,
                "artifacts": [],
                "created_at": _WHEN,
                "started_at": _WHEN,
                "finished_at": None,
            }
        }
    )

    id: str
    object: Literal["job"] = "job"
    name: str | None = None
    state: Literal["queued", "running", "succeeded", "failed", "cancelled", "rejected"]
    phase: str | None = None
    progress: Progress | None = None
    model: str
    rewind_to: str | None = Field(
        None, description="The earlier checkpoint that the schedule goes back to or starts from."
    )
    data: dict[str, str]
    spec: dict[str, Any] = Field(description="The complete spec, defaults filled in.")
    attempt: int
    attempts: list[Attempt]
    priority: int
    cancel_requested: bool
    retry_of: str | None = None
    error: Failure | None = None
    summary: dict[str, Any] | None = None
    artifacts: list[Artifact]
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None


class Artifacts(BaseModel):
    """All output files of a job."""

    data: list[Artifact]


class Events(BaseModel):
    """A job's events after a number; ask again with `after=next_after`."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "data": [
                    {"seq": 1, "at": _WHEN, "type": "state", "state": "queued", "attempt": 0},
                    {"seq": 2, "at": _WHEN, "type": "phase", "phase": "loading"},
                ],
                "next_after": 2,
                "ended": False,
            }
        }
    )

    data: list[dict[str, Any]] = Field(description="Each with seq, at, type and its own fields.")
    next_after: int
    ended: bool = Field(description="The job is over and nothing follows these.")


class KeyRequest(_Request):
    """A new API key."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "laptop"}]})

    name: str = Field("", max_length=200)


class Key(BaseModel):
    """An API key; the secret itself is not stored."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": "key_06f3k2r5q7a2c4e6g7i2k4m6o7",
                "object": "key",
                "name": "laptop",
                "current": True,
                "created_at": _WHEN,
                "start": "sct_Yk3x",
            }
        }
    )

    id: str
    object: Literal["key"] = "key"
    name: str
    current: bool = Field(description="Whether this request was made with it.")
    created_at: datetime
    start: str = Field(description="The first characters of the secret, to tell keys apart.")


class NewKey(Key):
    """A key just made: the only time its secret is shown."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": "key_06f3k2r5q7a2c4e6g7i2k4m6o7",
                "object": "key",
                "name": "laptop",
                "current": False,
                "created_at": _WHEN,
                "start": "sct_Yk3x",
                "secret": "sct_...",
            }
        }
    )

    secret: str


class Catalogue(BaseModel):
    """Every method that a spec can name; `parameters` and `spec` are JSON Schemas."""

    criteria: list[dict[str, Any]]
    compensations: list[dict[str, Any]]
    spec: dict[str, Any]


class Limits(BaseModel):
    """What this service takes."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "model_bytes": 2147483648,
                "dataset_bytes": 2147483648,
                "json_bytes": 1048576,
                "page_items": 200,
                "queued_jobs": 1000,
                "wall_seconds": 3600,
                "attempts": 3,
            }
        }
    )

    model_bytes: int
    dataset_bytes: int
    json_bytes: int
    page_items: int
    queued_jobs: int
    wall_seconds: float
    attempts: int


class Health(BaseModel):
    """The process is alive."""

    status: Literal["ok"] = "ok"


class Control(BaseModel):
    """Relay and reaper, as far as the store knows of them; informational."""

    alive: bool


class Workers(BaseModel):
    """Workers that hold a lease or claimed a job lately; informational."""

    seen: int


class Sandbox(BaseModel):
    """What uploads are opened in: the setting of this service, and what its workers have."""

    setting: Literal["required", "best", "off"]
    levels: dict[str, int] = Field(
        description="Level in force (bubblewrap, landlock, limits) -> living worker processes."
    )


class Readiness(BaseModel):
    """Database and blobs work; requests can be served."""

    status: Literal["ready"] = "ready"
    database: Literal["ok"] = "ok"
    blobs: Literal["ok"] = "ok"
    control: Control
    workers: Workers
    sandbox: Sandbox
