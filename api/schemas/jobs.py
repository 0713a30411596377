"""Jobs: what is asked for, and what is told of them."""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, field_validator

from api.schemas.described import Answer, Described, Request, Values
from api.schemas.errors import Failure
from api.schemas.examples import DATASET_ID, JOB_ID, MODEL_ID, SPEC, WHEN
from api.schemas.pages import Page
from pruning.report.summary import Summary
from pruning.spec import Spec

_DEEPEST_SPEC = 20

JobState = Literal["queued", "running", "succeeded", "failed", "cancelled", "rejected"]


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


class JobData(Request):
    """Dataset ids by role. Without `evaluation`, a seeded share of `calibration` is held out."""

    calibration: str
    training: str | None = None
    evaluation: str | None = None

    def roles(self) -> dict[str, str]:
        """The roles that were given."""
        return self.model_dump(exclude_none=True)


class PlanRequest(Request):
    """A job to be priced and checked, without running it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"model": MODEL_ID, "data": {"calibration": DATASET_ID}, "spec": SPEC}]
        }
    )

    model: str
    data: JobData
    spec: Annotated[Values | None, Described(Spec | None)] = Field(
        None, description="The spec; every field has a default."
    )
    rewind_to: str | None = Field(
        None,
        description="A ready model, an earlier checkpoint of the same network: for schedule rounds "
        "with rewind to weights, and at_initialisation. Refused for others.",
    )

    @field_validator("spec")
    @classmethod
    def _is_flat(cls, spec: Values | None) -> Values | None:
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
                    "model": MODEL_ID,
                    "data": {"calibration": DATASET_ID},
                    "spec": SPEC,
                    "name": "lenet at 85 %",
                    "priority": 5,
                }
            ]
        }
    )

    name: Annotated[str, Field(max_length=200)] | None = None
    priority: int = Field(
        5, ge=0, le=9, description="Among the jobs of the project; 9 is the most urgent."
    )


class Progress(Answer):
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


class Artifact(Answer):
    """One output file."""

    name: str
    bytes: int
    sha256: str
    format: str
    url: str


class Artifacts(Answer):
    """All output files of a job."""

    data: list[Artifact]


class Attempt(Answer):
    """One try of a job by one worker."""

    number: int
    worker: str
    started_at: datetime
    finished_at: datetime | None = None
    outcome: str | None = Field(None, description="How it ended; null while it runs.")
    error: Failure | None = Field(None, description="Why it ended, if it was lost or failed.")
    sandbox: str | None = Field(
        None, description="The level its process ran under: bubblewrap, landlock or limits."
    )


class Job(Answer):
    """One run of a spec on a model."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": JOB_ID,
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
                "model": MODEL_ID,
                "rewind_to": None,
                "data": {"calibration": DATASET_ID},
                "spec": SPEC,
                "attempt": 1,
                "attempts": [
                    {
                        "number": 1,
                        "worker": "host:7.0:12",
                        "started_at": WHEN,
                        "finished_at": None,
                        "outcome": None,
                        "error": None,
                        "sandbox": "bubblewrap",
                    }
                ],
                "priority": 5,
                "cancel_requested": False,
                "retry_of": None,
                "error": None,
                "summary": None,
                "artifacts": [],
                "created_at": WHEN,
                "started_at": WHEN,
                "finished_at": None,
            }
        }
    )

    id: str
    object: Literal["job"] = "job"
    name: str | None = None
    state: JobState
    phase: str | None = None
    progress: Progress | None = None
    model: str
    rewind_to: str | None = Field(
        None, description="The earlier checkpoint that the schedule goes back to or starts from."
    )
    data: Annotated[dict[str, str], Described(JobData)]
    spec: Annotated[Values, Described(Spec)] = Field(
        description="The complete spec, defaults filled in."
    )
    attempt: int
    attempts: list[Attempt]
    priority: int
    cancel_requested: bool
    retry_of: str | None = None
    error: Failure | None = Field(None, description="Why it failed, or was rejected by a gate.")
    summary: Annotated[Values | None, Described(Summary | None)] = Field(
        None, description="A few numbers of the report; null until there is one."
    )
    artifacts: list[Artifact]
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None


class JobPage(Page[Job]):
    """One page of jobs, newest first."""
