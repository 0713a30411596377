"""The tables. Every row that a user can see names the project that owns it."""

from datetime import datetime
from typing import Annotated, Any

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from store.columns import SERIAL, FreeText, Identifier, JsonValue, Timestamp

Id = Annotated[str, mapped_column(Identifier)]
Owner = Annotated[str, mapped_column(sa.ForeignKey("project.id", ondelete="CASCADE"), index=True)]
Digest = Annotated[str, mapped_column(sa.ForeignKey("blob.sha256"), index=True)]
OfJob = Annotated[str, mapped_column(sa.ForeignKey("job.id", ondelete="CASCADE"))]
Json = dict[str, Any]


class Base(DeclarativeBase):
    """What all tables share: types and the names of constraints."""

    metadata = sa.MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "ix": "ix_%(table_name)s_%(column_0_name)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
        }
    )
    type_annotation_map = {
        str: FreeText,
        Id: Identifier,
        Owner: Identifier,
        Digest: Identifier,
        OfJob: Identifier,
        datetime: Timestamp,
        Json: JsonValue,
    }


class Project(Base):
    """The owner of everything else."""

    __tablename__ = "project"

    id: Mapped[Id] = mapped_column(primary_key=True)
    name: Mapped[str]
    created_at: Mapped[datetime]


class ApiKey(Base):
    """A key of a project; the secret itself is known to its holder only."""

    __tablename__ = "api_key"

    id: Mapped[Id] = mapped_column(primary_key=True)
    project_id: Mapped[Owner]
    name: Mapped[str]
    sha256: Mapped[Id] = mapped_column(unique=True)
    start: Mapped[str]
    created_at: Mapped[datetime]


class Blob(Base):
    """A file known by its digest. `touched_at`: when somebody last stored these bytes."""

    __tablename__ = "blob"

    sha256: Mapped[Id] = mapped_column(primary_key=True)
    bytes: Mapped[int] = mapped_column(sa.BigInteger)
    touched_at: Mapped[datetime] = mapped_column(index=True)


class Upload:
    """The columns of models and datasets; `state` is checking, ready or rejected."""

    id: Mapped[Id] = mapped_column(primary_key=True)
    project_id: Mapped[Owner]
    name: Mapped[str]
    sha256: Mapped[Digest]
    bytes: Mapped[int] = mapped_column(sa.BigInteger)
    state: Mapped[str]
    format: Mapped[str | None]
    facts: Mapped[Json | None]
    error: Mapped[Json | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


def _one_of_each_file(table: str) -> sa.Index:
    accepted = sa.text("state != 'rejected'")
    return sa.Index(
        f"uq_{table}_project_id_sha256_name",
        "project_id",
        "sha256",
        "name",
        unique=True,
        sqlite_where=accepted,
        postgresql_where=accepted,
    )


class Model(Upload, Base):
    """An uploaded network."""

    __tablename__ = "model"
    __table_args__ = (_one_of_each_file("model"),)

    files: Mapped[list["ModelFile"]] = relationship(
        lazy="selectin", passive_deletes="all", order_by="ModelFile.path"
    )


class ModelFile(Base):
    """One of several files of a model; `model.sha256` is then their canonical list."""

    __tablename__ = "model_file"

    model_id: Mapped[Id] = mapped_column(
        sa.ForeignKey("model.id", ondelete="CASCADE"), primary_key=True
    )
    path: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[Owner]
    sha256: Mapped[Digest]
    bytes: Mapped[int] = mapped_column(sa.BigInteger)


class Dataset(Upload, Base):
    """Uploaded arrays."""

    __tablename__ = "dataset"
    __table_args__ = (_one_of_each_file("dataset"),)


class Job(Base):
    """One run of a spec on a model, or one intake check of an upload (`subject_id`).

    `token` is the fencing token: it grows at each claim, and whoever holds an older one writes
    nothing. Its holder counts `beat` up, and loses the job to a reaper that has seen the same beat
    for `lease_seconds`. `attempts_without_checkpoint` counts attempts lost in a row, `put_offs` how
    often in a row the job was put off; `not_before` and `held_from` say when it may be tried again
    (`store.backoff`). `arrival` and `place` put it in line (`store.queue`); of the running attempt,
    `held_seconds` and `cost` are what is charged to the project (`store.shares`). `rewind_to` names
    a model too, an earlier checkpoint of the one that is pruned. There are no foreign keys to
    models and datasets, because a running check may outlive its upload; deleting an upload is
    refused while a pruning refers to it.
    """

    __tablename__ = "job"
    __table_args__ = (
        sa.UniqueConstraint("project_id", "idempotency_key", name="uq_job_idempotency_key"),
        sa.Index("ix_job_queue", "state", "klass", "project_id", "place", "not_before"),
    )

    id: Mapped[Id] = mapped_column(primary_key=True)
    project_id: Mapped[Owner]
    kind: Mapped[str]
    klass: Mapped[str]
    name: Mapped[str]
    subject_id: Mapped[Id | None] = mapped_column(index=True)
    model_id: Mapped[Id | None] = mapped_column(index=True)
    rewind_to: Mapped[Id | None] = mapped_column(index=True)
    spec: Mapped[Json]
    priority: Mapped[int] = mapped_column(default=0)
    arrival: Mapped[int] = mapped_column(sa.BigInteger, index=True)
    place: Mapped[int] = mapped_column(sa.BigInteger)
    retry_of: Mapped[Id | None]
    idempotency_key: Mapped[str | None]
    request_sha256: Mapped[Id | None]

    state: Mapped[str]
    phase: Mapped[str | None]
    progress: Mapped[Json | None]
    error: Mapped[Json | None]
    summary: Mapped[Json | None]
    cancel_requested: Mapped[bool] = mapped_column(default=False)

    attempt: Mapped[int] = mapped_column(default=0)
    attempts_without_checkpoint: Mapped[int] = mapped_column(default=0)
    put_offs: Mapped[int] = mapped_column(default=0)
    not_before: Mapped[datetime | None]
    held_from: Mapped[datetime | None]
    token: Mapped[int] = mapped_column(default=0)
    worker_id: Mapped[str | None]
    lease_seconds: Mapped[float | None]
    beat: Mapped[int] = mapped_column(default=0)
    held_seconds: Mapped[float] = mapped_column(default=0.0)
    cost: Mapped[float] = mapped_column(default=0.0)
    last_seq: Mapped[int] = mapped_column(default=0)

    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    queued_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    inputs: Mapped[list["JobInput"]] = relationship(
        lazy="selectin", passive_deletes="all", order_by="JobInput.role"
    )
    artifacts: Mapped[list["Artifact"]] = relationship(
        lazy="selectin", passive_deletes="all", order_by="Artifact.name"
    )
    attempts: Mapped[list["Attempt"]] = relationship(
        lazy="selectin", passive_deletes="all", order_by="Attempt.number"
    )

    @property
    def data(self) -> dict[str, str]:
        """The job's datasets: role -> id."""
        return {i.role: i.dataset_id for i in self.inputs}


class JobInput(Base):
    """A dataset in its role: calibration, training or evaluation."""

    __tablename__ = "job_input"

    job_id: Mapped[OfJob] = mapped_column(primary_key=True)
    role: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[Owner]
    dataset_id: Mapped[Id] = mapped_column(index=True)


class Attempt(Base):
    """One try of a job by one worker; `outcome` is None while it runs.

    `sandbox` is the level that its process ran under, None where that was not recorded.
    """

    __tablename__ = "attempt"
    __table_args__ = (sa.UniqueConstraint("job_id", "number"),)

    id: Mapped[Id] = mapped_column(primary_key=True)
    project_id: Mapped[Owner]
    job_id: Mapped[OfJob]
    number: Mapped[int]
    worker_id: Mapped[str]
    started_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    outcome: Mapped[str | None]
    error: Mapped[Json | None]
    sandbox: Mapped[str | None]


class JobEvent(Base):
    """Something a job said, numbered from 1 without gaps; `body` is a `pruning.events.Event`."""

    __tablename__ = "job_event"

    job_id: Mapped[OfJob] = mapped_column(primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    project_id: Mapped[Owner]
    at: Mapped[datetime]
    body: Mapped[Json]


class Artifact(Base):
    """An output file of a finished job."""

    __tablename__ = "artifact"
    __table_args__ = (sa.UniqueConstraint("job_id", "name"),)

    id: Mapped[Id] = mapped_column(primary_key=True)
    project_id: Mapped[Owner]
    job_id: Mapped[OfJob]
    name: Mapped[str]
    format: Mapped[str]
    sha256: Mapped[Digest]
    bytes: Mapped[int] = mapped_column(sa.BigInteger)
    created_at: Mapped[datetime]


class Checkpoint(Base):
    """A file from which a later attempt goes on; kept until the job is over."""

    __tablename__ = "checkpoint"

    job_id: Mapped[OfJob] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[Owner]
    sha256: Mapped[Digest]
    bytes: Mapped[int] = mapped_column(sa.BigInteger)
    attempt: Mapped[int]
    created_at: Mapped[datetime]


class Share(Base):
    """What a project has used of a class of workers, in seconds (`store.shares`)."""

    __tablename__ = "share"

    project_id: Mapped[Owner] = mapped_column(primary_key=True)
    klass: Mapped[str] = mapped_column(primary_key=True)
    used: Mapped[float]


class VirtualTime(Base):
    """What the project that was served last in a class had used then."""

    __tablename__ = "virtual_time"

    klass: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[float]


class Outbox(Base):
    """A message that leaves after the commit that wrote it; sent ones are deleted."""

    __tablename__ = "outbox"

    id: Mapped[int] = mapped_column(SERIAL, primary_key=True)
    topic: Mapped[str]
    payload: Mapped[Json]
    created_at: Mapped[datetime]


class Leader(Base):
    """Who does a task that only one process may do; it counts `beat` up while it lives."""

    __tablename__ = "leader"

    name: Mapped[Id] = mapped_column(primary_key=True)
    holder: Mapped[str]
    beat: Mapped[int] = mapped_column(sa.BigInteger)
    seen_at: Mapped[datetime]


class Worker(Base):
    """A worker process that lives: it renews `seen_at`, and its row goes with it."""

    __tablename__ = "worker"

    name: Mapped[str] = mapped_column(primary_key=True)
    sandbox: Mapped[str]
    seen_at: Mapped[datetime]
