"""What passes between the store and a worker: the claim, the lease, the outcome."""

from dataclasses import dataclass, field
from typing import Any, Literal, cast

import sqlalchemy as sa
from sqlalchemy.orm import Session

from store.blobs import StoredBlob
from store.clock import elapsed
from store.states import SUBJECTS
from store.tables import Checkpoint, Dataset, Job, Model


@dataclass(frozen=True)
class Input:
    """An upload that an attempt needs; of several `files`, `sha256` is that of their list."""

    id: str
    name: str
    sha256: str
    bytes: int
    facts: dict[str, Any] | None
    files: tuple[tuple[str, str], ...] = ()
    """Name and digest of each."""


@dataclass(frozen=True)
class SavedCheckpoint:
    """A checkpoint of an earlier attempt."""

    name: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Claim:
    """One attempt of one job, held by one worker until its lease runs out.

    `token` fences: every write names it, and an older one writes nothing. `subject` is the upload
    that an intake check is about; `model`, the earlier checkpoint
    `rewind_to` and `data` are what a pruning job works on.
    """

    job_id: str
    project_id: str
    kind: Literal["prune", "check_model", "check_dataset"]
    klass: str
    name: str
    attempt: int
    token: int
    worker_id: str
    lease_seconds: float
    spec: dict[str, Any]
    model: Input | None = None
    rewind_to: Input | None = None
    data: dict[str, Input] = field(default_factory=dict)
    subject: Input | None = None
    checkpoints: tuple[SavedCheckpoint, ...] = ()
    since: float = field(default_factory=elapsed, compare=False)

    @property
    def age(self) -> float:
        """For how many seconds it is held, on the clock of the process that has it."""
        return elapsed() - self.since


@dataclass(frozen=True)
class Lease:
    """What a renewal says: whether the claim still holds, and whether the user wants it to end."""

    valid: bool
    cancel_requested: bool = False


@dataclass(frozen=True)
class NewArtifact:
    """An output file, already stored as a blob."""

    name: str
    format: str
    blob: StoredBlob


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended, for good.

    Args:
        state: The job's final state.
        error: `SecateurError.as_dict()`; required for failed and rejected.
        summary: For a pruning job, what the job shows; for a check, `{"facts": …}`.
        artifacts: Output files; a failed or cancelled job has none.
    """

    state: Literal["succeeded", "failed", "cancelled", "rejected"]
    error: dict[str, Any] | None = None
    summary: dict[str, Any] | None = None
    artifacts: tuple[NewArtifact, ...] = ()

    def __post_init__(self) -> None:
        if self.state in ("failed", "rejected") and not self.error:
            raise ValueError(f"an outcome {self.state} needs an error")
        if self.artifacts and self.state not in ("succeeded", "rejected"):
            raise ValueError(f"an outcome {self.state} has no artifacts")


def claim_of(session: Session, job: Job, lease_seconds: float) -> Claim:
    """The claim on a job that has just become `worker_id`'s, with all it needs to run."""
    subject_table = SUBJECTS.get(job.kind)
    checkpoints = session.scalars(
        sa.select(Checkpoint)
        .where(Checkpoint.job_id == job.id)
        .order_by(Checkpoint.created_at, Checkpoint.name)
    )
    return Claim(
        job_id=job.id,
        project_id=job.project_id,
        kind=job.kind,  # type: ignore[arg-type]
        klass=job.klass,
        name=job.name,
        attempt=job.attempt,
        token=job.token,
        worker_id=job.worker_id or "",
        lease_seconds=lease_seconds,
        spec=job.spec,
        model=_input(session, Model, job.model_id),
        rewind_to=_input(session, Model, job.rewind_to),
        data={
            role: found
            for role, dataset_id in job.data.items()
            if (found := _input(session, Dataset, dataset_id)) is not None
        },
        subject=_input(session, subject_table, job.subject_id) if subject_table else None,
        checkpoints=tuple(SavedCheckpoint(c.name, c.sha256, c.bytes) for c in checkpoints),
    )


def _input(
    session: Session, table: type[Model] | type[Dataset], row_id: str | None
) -> Input | None:
    row = cast(Model | Dataset | None, session.get(table, row_id) if row_id else None)
    if row is None:
        return None
    files = tuple((file.path, file.sha256) for file in row.files) if table is Model else ()  # type: ignore[union-attr]
    return Input(row.id, row.name, row.sha256, row.bytes, row.facts, files)
