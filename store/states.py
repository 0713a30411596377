"""The job state machine. `transition` is the only place where a job's state changes."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from pruning.errors import SecateurError
from pruning.events import StateEvent
from store import backoff, outbox, queue, shares
from store.queries import events
from store.queries.events import FINAL_STATES
from store.tables import Attempt, Checkpoint, Dataset, Job, Model

STATES = ("queued", "running", *FINAL_STATES)
TRANSITIONS: dict[str, frozenset[str]] = {
    "queued": frozenset({"running", "cancelled", "failed"}),
    "running": frozenset({"queued", *FINAL_STATES}),
    "succeeded": frozenset(),
    "failed": frozenset(),
    "cancelled": frozenset(),
    "rejected": frozenset(),
}
SUBJECTS: dict[str, type[Model] | type[Dataset]] = {"check_model": Model, "check_dataset": Dataset}


def begin(session: Session, job: Job, now: datetime, *, size: int = 0) -> None:
    """Adds a new job as queued, with its first event and its doorbell.

    Args:
        session: A write transaction.
        job: The job.
        now: The time of creation.
        size: Bytes that its check has to read.
    """
    job.state = "queued"
    queue.enter(session, job, size)
    job.created_at = job.updated_at = job.queued_at = now
    session.add(job)
    session.flush()
    events.append(session, job.id, [StateEvent(state="queued")], now)
    _ring(session, job, now)


def transition(
    session: Session,
    job: Job,
    to: str,
    *,
    now: datetime,
    error: dict[str, Any] | None = None,
    reason: str | None = None,
    wait: float | None = None,
) -> None:
    """Moves a job to another state. The caller holds the job's row, fresh and locked.

    Appends a `StateEvent`, sets the timestamps, closes the running attempt and charges its project,
    rings for a job that is queued again, and passes the end of an intake check on to its model or
    dataset.

    Args:
        session: A write transaction.
        job: The job.
        to: The new state.
        now: The time of the change.
        error: `SecateurError.as_dict()`, for failed and rejected, or why an attempt was lost.
        reason: What the closed attempt ended as, if not as `to`: lost, drained or put_off.
        wait: For how many seconds a job that is queued again is held back; its doorbell is left
            out, since the relay rings again once they are over.

    Raises:
        SecateurError: `conflict` if the state machine has no such step.
    """
    if to not in TRANSITIONS.get(job.state, frozenset()):
        raise SecateurError(
            "conflict",
            f"Job {job.id} is {job.state}; from there it can't become {to}.",
            where="state",
            hint="Read the job again: its state has changed.",
        )
    if job.state == "running":
        _close_attempt(session, job, reason or to, error, now)
        shares.charge(session, job)
    job.state = to
    job.updated_at = now
    if to == "running":
        job.started_at = job.started_at or now
    else:
        job.worker_id = job.lease_seconds = None
    if to != "running":
        job.phase = job.progress = None
    job.not_before = job.held_from = None
    if to == "queued":
        job.queued_at = now
        if wait is None:
            _ring(session, job, now)
        else:
            backoff.hold(job, wait, now)
    if to in FINAL_STATES:
        job.finished_at = now
        job.error = error
        session.execute(sa.delete(Checkpoint).where(Checkpoint.job_id == job.id))
        _settle_subject(session, job, now)
    events.append(session, job.id, [StateEvent(state=to, attempt=job.attempt, error=error)], now)


def _ring(session: Session, job: Job, now: datetime) -> None:
    outbox.enqueue(session, outbox.DOORBELL, {"klass": job.klass, "job_id": job.id}, now)


def _close_attempt(
    session: Session, job: Job, outcome: str, error: dict[str, Any] | None, now: datetime
) -> None:
    session.execute(
        sa.update(Attempt)
        .where(Attempt.job_id == job.id, Attempt.number == job.attempt)
        .values(finished_at=now, outcome=outcome, error=error)
    )


def _settle_subject(session: Session, job: Job, now: datetime) -> None:
    """Ends an upload's `checking`; an upload that is gone, or settled, stays as it is."""
    table = SUBJECTS.get(job.kind)
    if table is None:
        return
    facts = (job.summary or {}).get("facts")
    passed = job.state == "succeeded"
    values: dict[str, Any] = (
        {"state": "ready", "facts": facts, "format": (facts or {}).get("format")}
        if passed
        else {"state": "rejected", "error": job.error or _unexplained(job)}
    )
    session.execute(
        sa.update(table)
        .where(table.id == job.subject_id, table.state == "checking")
        .values(updated_at=now, **values)
    )


def _unexplained(job: Job) -> dict[str, Any]:
    code = "cancelled" if job.state == "cancelled" else "internal_error"
    return SecateurError(
        code,
        f"The intake check ended {job.state} without saying why.",
        hint="Upload the file again.",
    ).as_dict()
