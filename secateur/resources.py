"""The service's resources as typed values. Fields that a newer service adds are ignored."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pruning.events import EVENT, Event, StateEvent
from pruning.facts import DatasetFacts, ModelFacts
from secateur.errors import SecateurError, from_fields

FINAL = frozenset({"succeeded", "failed", "cancelled", "rejected"})
"""States that a job never leaves."""


class _Resource(BaseModel):
    model_config = ConfigDict(extra="ignore")


class _Upload(_Resource):
    id: str
    name: str
    state: str = Field(description="checking, then ready or rejected.")
    bytes: int
    sha256: str
    error: dict[str, Any] | None = None
    created_at: datetime
    updated_at: datetime | None = None

    @property
    def failure(self) -> SecateurError | None:
        """Why intake rejected it."""
        return from_fields(self.error) if self.error else None


class Model(_Upload):
    """An uploaded, immutable network."""

    object: Literal["model"] = "model"
    format: str | None = None
    facts: dict[str, Any] | None = None

    @property
    def typed_facts(self) -> ModelFacts | None:
        """What intake learned; None before it has."""
        return ModelFacts.model_validate(self.facts) if self.facts else None


class Dataset(_Upload):
    """Uploaded arrays."""

    object: Literal["dataset"] = "dataset"
    facts: dict[str, Any] | None = None

    @property
    def typed_facts(self) -> DatasetFacts | None:
        """What intake learned; None before it has."""
        return DatasetFacts.model_validate(self.facts) if self.facts else None


class Progress(_Resource):
    """How far the running phase is, `done` of `total` units, and how far the whole job."""

    phase: str | None = None
    done: float | None = None
    total: float | None = None
    message: str | None = None
    fraction: float | None = None
    elapsed_seconds: float | None = None
    eta_seconds: float | None = None


class Artifact(_Resource):
    """One output file of a job."""

    name: str
    bytes: int
    sha256: str
    format: str = ""
    url: str | None = None


class Attempt(_Resource):
    """One try of a job by one worker; `sandbox` is the level that its process ran under."""

    number: int
    worker: str
    started_at: datetime
    finished_at: datetime | None = None
    outcome: str | None = None
    sandbox: str | None = None


class Job(_Resource):
    """One run of a spec on a model."""

    object: Literal["job"] = "job"
    id: str
    name: str | None = None
    state: str
    phase: str | None = None
    progress: Progress | None = None
    model: str
    rewind_to: str | None = None
    data: dict[str, str] = {}
    spec: dict[str, Any] = {}
    attempt: int = 0
    priority: int | None = None
    cancel_requested: bool = False
    retry_of: str | None = None
    error: dict[str, Any] | None = None
    summary: dict[str, Any] | None = None
    artifacts: list[Artifact] = []
    attempts: list[Attempt] = []
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def finished(self) -> bool:
        """Whether the state is final."""
        return self.state in FINAL

    @property
    def failure(self) -> SecateurError | None:
        """Why it failed."""
        return from_fields(self.error) if self.error else None


class Key(_Resource):
    """An API key; `secret` is there only in the answer that created it."""

    id: str
    name: str | None = None
    secret: str | None = None
    created_at: datetime | None = None


class OtherEvent(BaseModel):
    """An event of a kind, or with a field, that this version does not know."""

    model_config = ConfigDict(extra="allow")

    type: str


class JobEvent(_Resource):
    """One event of a job: its number within the job, when it was stored, and what was said."""

    seq: int
    at: datetime | None = None
    event: Event | OtherEvent

    @property
    def final(self) -> bool:
        """Whether no event comes after this one."""
        return isinstance(self.event, StateEvent) and self.event.state in FINAL

    @classmethod
    def parse(cls, values: dict[str, Any]) -> "JobEvent":
        """From the wire: the event's own fields stand beside `seq` and `at`."""
        own = {k: v for k, v in values.items() if k not in ("seq", "at")}
        try:
            event: Event | OtherEvent = EVENT.validate_python(own)
        except ValidationError:
            event = OtherEvent.model_validate({"type": "unknown", **own})
        return cls(seq=values["seq"], at=values.get("at"), event=event)
