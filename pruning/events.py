"""What a running job says: one JSON object a line, from the child process to the supervisor.

The same models are what `GET /v1/jobs/{id}/events` serves, so a client can parse them with this
module alone. Torch-free.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

Phase = Literal[
    "loading",
    "checking",
    "evaluating",
    "scoring",
    "pruning",
    "recovering",
    "verifying",
    "exporting",
]


class _Event(BaseModel):
    model_config = ConfigDict(extra="forbid")


Seconds = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


class _OfTheJob(_Event):
    """How far the whole job is."""

    fraction: float | None = Field(
        default=None,
        ge=0.0,
        le=1.0,
        description="Of the whole job, both its halves; null while that can't be told.",
    )
    elapsed_seconds: Seconds | None = Field(default=None, description="Since the attempt began.")
    eta_seconds: Seconds | None = Field(
        default=None, description="Until the job's end, as estimated; null while not known."
    )


class PhaseEvent(_Event):
    """A phase begins."""

    type: Literal["phase"] = "phase"
    phase: Phase


class ProgressEvent(_OfTheJob):
    """`done` of `total` units inside the running phase; sent at most once a second."""

    type: Literal["progress"] = "progress"
    phase: Phase
    done: float
    total: float
    message: str = ""


class AliveEvent(_OfTheJob):
    """The worker still has the job, though its process has said nothing for a while.

    Written by the worker, never by the job's process, and no sign that this gets on: a process that
    says nothing for `stall_seconds` is ended all the same.
    """

    type: Literal["alive"] = "alive"
    phase: Phase | None = None
    quiet_seconds: Seconds = Field(
        description="Since the job last got on; progress that is told again does not count."
    )


class WaitingEvent(_Event):
    """The job waits for a worker. Made for a stream as it is read, and stored nowhere."""

    type: Literal["waiting"] = "waiting"
    ahead: int = Field(
        description="Queued jobs expected to start first: those before it in its project, and "
        "as many of each other project."
    )
    running: int = Field(description="Jobs that workers of this kind are busy with.")
    waited_seconds: Seconds = Field(description="Since the job was queued.")
    put_off: dict[str, Any] | None = Field(
        default=None,
        description="Error for which the service put the job off; null where it may start.",
    )
    retry_seconds: Seconds | None = Field(
        default=None, description="Until a job that was put off may be tried again."
    )


class MetricEvent(_Event):
    """A measured number: `stage` is dense, pruned, recovered or a round's label."""

    type: Literal["metric"] = "metric"
    name: str
    stage: str
    value: float


class WarningEvent(_Event):
    """Something the user should know that does not stop the job."""

    type: Literal["warning"] = "warning"
    code: str
    message: str
    where: str | None = None


class CheckpointEvent(_Event):
    """A file in the job's folder of checkpoints, from which a later attempt can go on."""

    type: Literal["checkpoint"] = "checkpoint"
    name: str
    bytes: int


class DoneEvent(_Event):
    """The child has finished; what `result` holds depends on the job kind."""

    type: Literal["done"] = "done"
    state: Literal["succeeded", "rejected"] = "succeeded"
    result: dict[str, Any] = {}


class FailedEvent(_Event):
    """The child gives up; `error` is `SecateurError.as_dict()`."""

    type: Literal["failed"] = "failed"
    error: dict[str, Any]


class StateEvent(_Event):
    """The store made a transition (never written by a child)."""

    type: Literal["state"] = "state"
    state: str
    attempt: int = 0
    error: dict[str, Any] | None = None


Event = Annotated[
    PhaseEvent
    | ProgressEvent
    | AliveEvent
    | WaitingEvent
    | MetricEvent
    | WarningEvent
    | CheckpointEvent
    | DoneEvent
    | FailedEvent
    | StateEvent,
    Field(discriminator="type"),
]
EVENT: TypeAdapter[Event] = TypeAdapter(Event)
