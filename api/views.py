"""From rows of the store to what the API shows."""

from urllib.parse import quote

from api import schemas
from api.failures import failure
from pruning.errors import SecateurError
from store.tables import ApiKey, Artifact, Attempt, Dataset, Job, JobEvent, Model


def model_view(row: Model) -> schemas.Model:
    """A model as JSON shows it."""
    return schemas.Model.model_validate(row, from_attributes=True)


def dataset_view(row: Dataset) -> schemas.Dataset:
    """A dataset as JSON shows it."""
    return schemas.Dataset.model_validate(row, from_attributes=True)


def artifact_view(row: Artifact) -> schemas.Artifact:
    """An output file, with the path it is read at."""
    return schemas.Artifact(
        name=row.name,
        bytes=row.bytes,
        sha256=row.sha256,
        format=row.format,
        url=f"/v1/jobs/{row.job_id}/artifacts/{quote(row.name)}",
    )


def attempt_view(row: Attempt) -> schemas.Attempt:
    """One try of a job."""
    return schemas.Attempt(
        number=row.number,
        worker=row.worker_id,
        started_at=row.started_at,
        finished_at=row.finished_at,
        outcome=row.outcome,
        error=row.error,  # type: ignore[arg-type]
        sandbox=row.sandbox,
    )


def job_view(row: Job) -> schemas.Job:
    """A job, with its inputs and its artifacts."""
    if row.model_id is None:
        raise SecateurError("internal_error", f"The job {row.id} has no model.")
    return schemas.Job(
        id=row.id,
        name=row.name or None,
        state=row.state,  # type: ignore[arg-type]
        phase=row.phase,
        progress=schemas.Progress.model_validate(row.progress) if row.progress else None,
        model=row.model_id,
        rewind_to=row.rewind_to,
        data=row.data,
        spec=row.spec,
        attempt=row.attempt,
        attempts=[attempt_view(attempt) for attempt in row.attempts],
        priority=row.priority,
        cancel_requested=row.cancel_requested,
        retry_of=row.retry_of,
        error=row.error,  # type: ignore[arg-type]
        summary=row.summary,
        artifacts=[artifact_view(artifact) for artifact in row.artifacts],
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
    )


def event_view(row: JobEvent) -> dict[str, object]:
    """An event: its number, its time and its own fields."""
    shown = {"seq": row.seq, "at": row.at.isoformat().replace("+00:00", "Z"), **row.body}
    if shown.get("error"):
        shown["error"] = failure(shown["error"])
    return shown


def key_view(row: ApiKey, current: str) -> schemas.Key:
    """A key without its secret."""
    return schemas.Key(
        id=row.id,
        name=row.name,
        start=row.start,
        current=row.id == current,
        created_at=row.created_at,
    )
