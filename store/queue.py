"""Which job is next: whose turn it is (`store.shares`), and the order within a project.

Within a project and a class the order is one number, `place`, smallest first: by priority, then by
arrival. A large upload is checked as if it had come later, by one arrival for each
`BYTES_PER_ARRIVAL`, so that small checks overtake it, but never more than a bounded number. A job
whose attempt was lost arrives anew, behind all that had not been tried. Arrivals are counted, not
timed, so that a clock that is set puts no job before another.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from store import backoff, shares
from store.shares import Standing
from store.tables import Job

HIGHEST_PRIORITY = 9
BYTES_PER_ARRIVAL = 8 << 20

_ARRIVALS = 1 << 48
"""More than will ever arrive: priority goes before arrival."""

_FIRST_PLACE = -(1 << 62)


def enter(session: Session, job: Job, size: int = 0) -> None:
    """Gives a job its place behind those that are there.

    Jobs that arrive at the same moment may get the same number; then their ids decide.

    Args:
        session: A write transaction.
        job: The job.
        size: Bytes that its check has to read; 0 for a pruning.
    """
    job.arrival = (session.scalar(sa.select(sa.func.max(Job.arrival))) or 0) + 1
    urgency = HIGHEST_PRIORITY - (job.priority or 0)
    job.place = urgency * _ARRIVALS + job.arrival + size // BYTES_PER_ARRIVAL


def anything_waits(session: Session, klass: str, now: datetime) -> bool:
    """Whether a job of a class could be claimed."""
    return bool(session.scalar(sa.select(sa.exists().where(*_queued(klass), backoff.free(now)))))


@dataclass(frozen=True)
class Turn:
    """The job that is next, and whose turn it is; charged by `shares.serve` once it is claimed."""

    job_id: str
    token: int
    of: Standing
    time: float


def next_turn(session: Session, klass: str, now: datetime) -> Turn | None:
    """The next job of a class that nothing holds back, locked; None if there is none.

    Until the transaction ends, nobody else claims in this class. Bells ring more often than needed,
    so nothing is locked where nothing waits.
    """
    if not session.scalar(sa.select(sa.exists().where(*_queued(klass)))):
        return None
    time = shares.now_in(session, klass, lock=True)
    for standing in shares.standings(session, klass, time):
        job = session.execute(
            sa.select(Job.id, Job.token)
            .where(*_queued(klass), Job.project_id == standing.project_id, backoff.free(now))
            .order_by(Job.place, Job.id)
            .limit(1)
            .with_for_update(of=Job, skip_locked=True)
        ).first()
        if job is not None:
            return Turn(job.id, job.token, standing, time)
    return None


@dataclass(frozen=True)
class Waiting:
    """What is known of a queued job's turn: queued jobs that come first, and jobs that run."""

    ahead: int
    running: int


def outlook(session: Session, klass: str, job_ids: Collection[str]) -> dict[str, Waiting]:
    """How many jobs come before each of some queued ones, as an estimate.

    Those before it in its project are known. Of every other project as many are taken to come
    first, as far as it has any: that is so where all jobs take equally long. Jobs that were put off
    come before nobody.

    Args:
        session: A transaction.
        klass: The class of all of them.
        job_ids: Queued jobs; others are left out of the answer.
    """
    if not job_ids:
        return {}
    asked = _before(session, klass, job_ids)
    waiting = session.execute(
        sa.select(Job.project_id, sa.func.count().label("jobs"))
        .where(*_queued(klass), Job.not_before.is_(None))
        .group_by(Job.project_id)
    )
    counts = {row.project_id: row.jobs for row in waiting}
    running = session.scalar(
        sa.select(sa.func.count()).where(Job.state == "running", Job.klass == klass)
    )
    time = shares.now_in(session, klass)
    turns = [s.project_id for s in shares.standings(session, klass, time)]
    return {
        job_id: Waiting(_ahead(project_id, before, turns, counts), running or 0)
        for job_id, (project_id, before) in asked.items()
    }


def _before(session: Session, klass: str, job_ids: Collection[str]) -> dict[str, tuple[str, int]]:
    """The project of each of some queued jobs, and how many of its jobs come before this one.

    Jobs are counted from each place that is asked for to the next, in the index alone, so that all
    together take no longer than the last of them.
    """
    previous = sa.func.lag(Job.place, 1, _FIRST_PLACE).over(
        partition_by=Job.project_id, order_by=(Job.place, Job.id)
    )
    asked = (
        sa.select(Job.id, Job.project_id, Job.place, previous.label("previous"))
        .where(*_queued(klass), Job.id.in_(job_ids))
        .subquery()
    )
    between = (
        sa.select(sa.func.count())
        .where(
            *_queued(klass),
            Job.project_id == asked.c.project_id,
            Job.place >= asked.c.previous,
            Job.place < asked.c.place,
            Job.not_before.is_(None),
        )
        .scalar_subquery()
    )
    rows = session.execute(
        sa.select(asked.c.id, asked.c.project_id, between).order_by(
            asked.c.project_id, asked.c.place, asked.c.id
        )
    )
    found: dict[str, tuple[str, int]] = {}
    counted: Counter[str] = Counter()
    for job_id, project_id, count in rows:
        counted[project_id] += count
        found[job_id] = project_id, counted[project_id]
    return found


def _ahead(project_id: str, before: int, turns: list[str], counts: Mapping[str, int]) -> int:
    """Jobs that come first: a round has one of each project, in the order of their turns."""
    ahead, earlier = before, True
    for other in turns:
        if other == project_id:
            earlier = False
        else:
            ahead += min(counts.get(other, 0), before + earlier)
    return ahead


def _queued(klass: str) -> tuple[sa.ColumnElement[bool], ...]:
    return Job.state == "queued", Job.klass == klass
