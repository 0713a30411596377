"""Events of jobs, numbered within the job from 1 without gaps."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from pruning.errors import SecateurError
from pruning.events import Event, WaitingEvent
from store import backoff, queue
from store.clock import utcnow
from store.lookups import Lookup
from store.tables import Attempt, Job, JobEvent

PROGRESS = Lookup(Job.id, *(Job.id, Job.state, Job.last_seq), where="kind = 'prune'")
"""Of pruning jobs: id, state, number of the newest event."""

FINAL_STATES = ("succeeded", "failed", "cancelled", "rejected")


@dataclass(frozen=True)
class EventPage:
    """Events after a number. `ended`: the job is over and nothing follows these.

    `last` is the number of the job's newest event.
    """

    items: list[JobEvent]
    next_after: int
    ended: bool
    last: int


def append(
    session: Session,
    job_id: str,
    events: Sequence[Event],
    now: datetime | None = None,
    times: Sequence[datetime] | None = None,
) -> int:
    """Adds events to a job, all at `now` or each at its own time; the number of the last one.

    The job's row stays locked until the transaction ends, so numbers have neither gaps nor twins.
    """
    session.flush()
    last, project_id = session.execute(
        sa.update(Job)
        .where(Job.id == job_id)
        .values(last_seq=Job.last_seq + len(events))
        .returning(Job.last_seq, Job.project_id)
        .execution_options(synchronize_session=False)
    ).one()
    times = times or [now or utcnow()] * len(events)
    session.add_all(
        JobEvent(
            job_id=job_id,
            seq=last - len(events) + i,
            project_id=project_id,
            at=at,
            body=event.model_dump(mode="json"),
        )
        for i, (event, at) in enumerate(zip(events, times, strict=True), 1)
    )
    session.flush()
    return int(last)


def after(
    session: Session, project_id: str, job_id: str, seq: int = 0, limit: int = 100
) -> EventPage:
    """The job's events with numbers above `seq`, oldest first.

    Raises:
        SecateurError: `not_found`.
    """
    job = session.execute(
        sa.select(Job.state, Job.last_seq).where(
            Job.id == job_id, Job.project_id == project_id, Job.kind == "prune"
        )
    ).first()
    if job is None:
        raise SecateurError("not_found", f"There is no job {job_id}.", where="job")
    items = of_job(session, job_id, seq, limit)
    next_after = items[-1].seq if items else seq
    ended = job.state in FINAL_STATES and next_after >= job.last_seq
    return EventPage(items, next_after, ended, job.last_seq)


def of_job(session: Session, job_id: str, seq: int, limit: int) -> list[JobEvent]:
    """The events with numbers above `seq` of a job, whoever owns it, oldest first."""
    return list(
        session.scalars(
            sa.select(JobEvent)
            .where(JobEvent.job_id == job_id, JobEvent.seq > seq)
            .order_by(JobEvent.seq)
            .limit(limit)
        )
    )


def waiting(session: Session, project_id: str, job_id: str, now: datetime) -> WaitingEvent | None:
    """What a queued job waits for; None for one that is not queued, or not there."""
    owned = sa.select(Job.id).where(Job.id == job_id, Job.project_id == project_id)
    if session.scalar(owned) is None:
        return None
    return waiting_all(session, [job_id], now).get(job_id)


def waiting_all(
    session: Session, job_ids: Collection[str], now: datetime
) -> dict[str, WaitingEvent]:
    """What each of some jobs waits for, whoever owns them; those that are not queued are left out.

    For all together it takes about as long as for one of them.
    """
    last = sa.and_(Attempt.job_id == Job.id, Attempt.number == Job.attempt)
    jobs = session.execute(
        sa.select(
            Job.id,
            Job.klass,
            Job.queued_at,
            Job.not_before,
            backoff.free(now).label("free"),
            Attempt.error,
        )
        .outerjoin(Attempt, last)
        .where(Job.id.in_(job_ids), Job.state == "queued")
    ).all()
    found: dict[str, WaitingEvent] = {}
    for klass in {job.klass for job in jobs}:
        of_class = [job for job in jobs if job.klass == klass]
        outlook = queue.outlook(session, klass, [job.id for job in of_class])
        found |= {job.id: _waiting(job, outlook[job.id], now) for job in of_class}
    return found


def _waiting(job: Any, outlook: queue.Waiting, now: datetime) -> WaitingEvent:
    waited = max(0.0, (now - job.queued_at).total_seconds())
    event = WaitingEvent(
        ahead=outlook.ahead, running=outlook.running, waited_seconds=round(waited, 2)
    )
    if not job.free:
        event.put_off = job.error
        event.retry_seconds = round((job.not_before - now).total_seconds(), 2)
    return event
