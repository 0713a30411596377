"""Pruning jobs. Intake checks are rows of the same table, and never seen here."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from pruning.errors import SecateurError
from store import states
from store.clock import utcnow
from store.ids import new_id
from store.lookups import Lookup
from store.pages import Page, Takes, page
from store.queries import datasets, models
from store.tables import Job, JobInput

VERSIONS = Lookup(
    Job.id,
    *(Job.project_id, Job.id, Job.state, Job.last_seq, Job.token, Job.updated_at),
    where="kind = 'prune'",
)
"""Project, id, and what differs whenever a job is shown otherwise.

A change of state, of progress or of attempts appends an event; all others move `updated_at`.
"""


def create(
    session: Session,
    project_id: str,
    *,
    model_id: str,
    data: Mapping[str, str],
    spec: dict[str, Any],
    rewind_to: str | None = None,
    name: str = "",
    priority: int = 0,
    klass: str = "cpu",
    idempotency_key: str | None = None,
    request_sha256: str | None = None,
    retry_of: str | None = None,
    queued_limit: int | None = None,
    now: datetime | None = None,
) -> tuple[Job, bool]:
    """A new job, queued, with its outbox row.

    Args:
        session: A write transaction.
        project_id: The owner.
        model_id: A ready model of the project.
        data: Ready datasets of the project: role -> id.
        spec: The complete spec.
        rewind_to: A ready model of the project, an earlier checkpoint of the one that is pruned.
        name: What the user calls it.
        priority: 0 to 9; of the jobs of a project, higher goes first.
        klass: cpu or gpu.
        idempotency_key: The same key gives the same job.
        request_sha256: Digest of the request, to tell a repetition from a different request.
        retry_of: The job that this one repeats.
        queued_limit: How many jobs of the project may wait at the same time.
        now: The time of creation.

    Returns:
        The job, and whether it is new.

    Raises:
        SecateurError: `idempotency_mismatch`, `too_many_jobs`, and those of `Uploads.usable`.
    """
    at = now or utcnow()
    if idempotency_key is not None:
        earlier = _by_key(session, project_id, idempotency_key)
        if earlier is not None:
            return _same_request(earlier, request_sha256), False
    # In the order of ids, so that two requests never wait for each other.
    needed = ({rewind_to: "rewind_to"} if rewind_to else {}) | {model_id: "model"}
    for needed_id, where in sorted(needed.items()):
        models.usable(session, project_id, needed_id, where=where, lock=True)
    for role, dataset_id in sorted(data.items(), key=lambda item: item[1]):
        datasets.usable(session, project_id, dataset_id, where=f"data.{role}", lock=True)
    if queued_limit is not None:
        _refuse_too_many(session, project_id, queued_limit)
    job = Job(
        id=new_id("job"),
        project_id=project_id,
        kind="prune",
        klass=klass,
        name=name,
        model_id=model_id,
        rewind_to=rewind_to,
        spec=spec,
        priority=priority,
        retry_of=retry_of,
        idempotency_key=idempotency_key,
        request_sha256=request_sha256,
        inputs=[
            JobInput(role=role, project_id=project_id, dataset_id=dataset_id)
            for role, dataset_id in sorted(data.items())
        ],
        artifacts=[],
    )
    try:
        with session.begin_nested():
            states.begin(session, job, at)
    except IntegrityError:
        # The same key has just been used by a request that ran beside this one.
        earlier = _by_key(session, project_id, idempotency_key or "")
        if earlier is None:
            raise
        return _same_request(earlier, request_sha256), False
    return job, True


def repeated(
    session: Session, project_id: str, idempotency_key: str, request_sha256: str
) -> Job | None:
    """The job that this key made before, even if what it was made from is gone.

    Raises:
        SecateurError: `idempotency_mismatch`.
    """
    earlier = _by_key(session, project_id, idempotency_key)
    return None if earlier is None else _same_request(earlier, request_sha256)


def get(session: Session, project_id: str, job_id: str) -> Job:
    """One job.

    Raises:
        SecateurError: `not_found`.
    """
    return _get(session, project_id, job_id)


def of_ids(session: Session, ids: Sequence[str]) -> list[Job]:
    """The jobs with these ids, whoever owns them."""
    return list(session.scalars(sa.select(Job).where(Job.id.in_(ids))))


def not_found(job_id: str) -> SecateurError:
    """The error for an id that is nobody's or somebody else's."""
    return SecateurError("not_found", f"There is no job {job_id}.", where="job")


def list_page(
    session: Session,
    project_id: str,
    *,
    state: str | None = None,
    limit: int = 50,
    cursor: str | None = None,
    takes: Takes[Job] | None = None,
) -> Page[Job]:
    """The project's jobs, newest first."""
    query = sa.select(Job).where(Job.project_id == project_id, Job.kind == "prune")
    if state is not None:
        query = query.where(Job.state == state)
    return page(session, query, Job.id, limit=limit, cursor=cursor, takes=takes)


def request_cancel(
    session: Session, project_id: str, job_id: str, now: datetime | None = None
) -> Job:
    """Cancels a queued job at once, and asks a running one to end.

    Raises:
        SecateurError: `not_found`, or `conflict` if the job ended otherwise.
    """
    job = _get(session, project_id, job_id, lock=True)
    at = now or utcnow()
    if job.state == "queued":
        job.cancel_requested = True
        states.transition(session, job, "cancelled", now=at)
    elif job.state == "running":
        job.cancel_requested = True
        job.updated_at = at
    elif job.state != "cancelled":
        raise SecateurError(
            "conflict", f"Job {job_id} has already {_ended(job)}; it can't be cancelled."
        )
    session.flush()
    return job


def retry(
    session: Session,
    project_id: str,
    job_id: str,
    *,
    queued_limit: int | None = None,
    now: datetime | None = None,
) -> Job:
    """A new job with the same request as one that is over.

    Raises:
        SecateurError: `not_found`, `conflict` while it is not over, and those of `create`.
    """
    job = _get(session, project_id, job_id)
    _refuse_unfinished(job, "retried")
    again, _ = create(
        session,
        project_id,
        model_id=job.model_id or "",
        data=job.data,
        spec=job.spec,
        rewind_to=job.rewind_to,
        name=job.name,
        priority=job.priority,
        klass=job.klass,
        retry_of=job.id,
        queued_limit=queued_limit,
        now=now,
    )
    return again


def delete(session: Session, project_id: str, job_id: str) -> None:
    """Removes a job that is over, with its events and artifacts.

    Raises:
        SecateurError: `not_found`, or `conflict` while it is not over.
    """
    job = _get(session, project_id, job_id, lock=True)
    _refuse_unfinished(job, "deleted")
    session.delete(job)
    session.flush()


def counts(session: Session) -> dict[tuple[str, str], int]:
    """How many jobs of all projects there are by class and state, for metrics."""
    rows = session.execute(
        sa.select(Job.klass, Job.state, sa.func.count()).group_by(Job.klass, Job.state)
    )
    return {(klass, state): count for klass, state, count in rows}


def _get(session: Session, project_id: str, job_id: str, *, lock: bool = False) -> Job:
    query = sa.select(Job).where(
        Job.id == job_id, Job.project_id == project_id, Job.kind == "prune"
    )
    if lock:
        query = query.with_for_update(of=Job)
    job = session.scalars(query.execution_options(populate_existing=True)).first()
    if job is None:
        raise not_found(job_id)
    return job


def _by_key(session: Session, project_id: str, key: str) -> Job | None:
    return session.scalars(
        sa.select(Job).where(Job.project_id == project_id, Job.idempotency_key == key)
    ).first()


def _same_request(job: Job, request_sha256: str | None) -> Job:
    if job.request_sha256 != request_sha256:
        raise SecateurError(
            "idempotency_mismatch",
            f"This idempotency key made job {job.id} from a different request.",
            where="Idempotency-Key",
            hint="Use a new key for a new request.",
        )
    return job


def _refuse_too_many(session: Session, project_id: str, limit: int) -> None:
    queued = session.scalar(
        sa.select(sa.func.count())
        .select_from(Job)
        .where(
            Job.project_id == project_id,
            Job.kind == "prune",
            Job.state == "queued",
            Job.klass.in_(("cpu", "gpu")),  # so that the index of the queue serves
        )
    )
    if queued is not None and queued >= limit:
        raise SecateurError(
            "too_many_jobs",
            f"{queued} jobs of this project are waiting; the limit is {limit}.",
            hint="Wait for some to start, or cancel some.",
        )


def _refuse_unfinished(job: Job, done: str) -> None:
    if job.state not in states.FINAL_STATES:
        raise SecateurError(
            "conflict",
            f"Job {job.id} is {job.state}; it can be {done} once it is over.",
            hint=f"Cancel it first: POST /v1/jobs/{job.id}/cancel.",
        )


def _ended(job: Job) -> str:
    return {"rejected": "been rejected by a gate"}.get(job.state, job.state)
