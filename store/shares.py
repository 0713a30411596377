"""What share of the workers each project has had.

Start-time fair queueing (Goyal, Vin, Cheng 1996). Of each class of workers, a project has used so
many seconds; the project that has used least, among those with jobs that wait, is next. Seconds
count only while a job of another project waits for the same workers: what nobody else wanted is
free. A running job counts at once, with `LEAST_SECONDS` or what it has used so far, so that
several free workers do not all go to one project.

The class has a time of its own: what the project that was served last had used when it was served.
Who has used less than that was away, and goes on from there: nobody saves time up. So a project
that comes back is served next, and a project's only job beside any number of another's waits at
most for the running ones.

Seconds are those of the holder's own clock (`Claim.age`), never differences of wall clocks.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from store import backoff
from store.tables import Job, Share, VirtualTime
from store.upsert import insert

LEAST_SECONDS = 1.0
"""The least that an attempt counts: a worker is not free again before about that."""

_COST = sa.case((Job.cost > LEAST_SECONDS, Job.cost), else_=LEAST_SECONDS)


@dataclass(frozen=True)
class Standing:
    """A project with jobs that wait.

    Args:
        project_id: The project.
        used: Seconds that it has used, running jobs included.
        running: Seconds of its running jobs.
    """

    project_id: str
    used: float
    running: float


def now_in(session: Session, klass: str, *, lock: bool = False) -> float:
    """The time of a class.

    Args:
        session: A transaction; one that writes, where it is to be locked.
        klass: The class.
        lock: Whether to keep others from claiming in the class until the transaction ends: of two
            that chose at once, the second would not know what the first one took.
    """
    query = sa.select(VirtualTime.value).where(VirtualTime.klass == klass)
    if not lock:
        return session.scalar(query) or 0.0
    found = session.scalar(query.with_for_update())
    if found is None:
        row = insert(session, VirtualTime).values(klass=klass, value=0.0)
        session.execute(row.on_conflict_do_nothing())
        found = session.scalar(query.with_for_update())
    return found or 0.0


def standings(session: Session, klass: str, time: float) -> Iterator[Standing]:
    """The projects with queued jobs of a class in the order of their turns, next first."""
    now = {"klass": klass, "time": time}
    # The first has a job that may start, unless all of its jobs are put off.
    first = session.execute(_FIRST, now).first()
    if first is None:
        return
    yield Standing(*first)
    yield from (Standing(*row) for row in session.execute(_OTHERS, now).all())


def serve(session: Session, klass: str, served: Standing, time: float) -> None:
    """Moves the class's time on to a project whose turn it is, and the project's to the class's."""
    start = max(served.used, time)
    _set_used(session, served.project_id, klass, start - served.running)
    session.execute(sa.update(VirtualTime).where(VirtualTime.klass == klass).values(value=start))


def account(session: Session, job: Job, age: float, now: datetime) -> None:
    """Adds to a running attempt's cost what has passed since last time, if another project waited.

    Args:
        session: A write transaction.
        job: The job, running.
        age: For how many seconds its holder has had it.
        now: The time, which tells who is put off.
    """
    more = age - job.held_seconds
    if more <= 0:
        return
    job.held_seconds = age
    if _others_wait(session, job, now):
        job.cost += more


def charge(session: Session, job: Job) -> None:
    """Takes what a running attempt has cost, which is over, into what its project has used."""
    cost = max(job.cost, LEAST_SECONDS)
    row = insert(session, Share).values(project_id=job.project_id, klass=job.klass, used=cost)
    session.execute(
        row.on_conflict_do_update(
            index_elements=[Share.project_id, Share.klass], set_={"used": Share.used + cost}
        )
    )
    job.cost = job.held_seconds = 0.0


def _set_used(session: Session, project_id: str, klass: str, used: float) -> None:
    row = insert(session, Share).values(project_id=project_id, klass=klass, used=used)
    session.execute(
        row.on_conflict_do_update(
            index_elements=[Share.project_id, Share.klass], set_={"used": used}
        )
    )


def _others_wait(session: Session, job: Job, now: datetime) -> bool:
    waiting = sa.and_(Job.state == "queued", Job.klass == job.klass, backoff.free(now))
    # Two ranges of the index, where != would read all that the project itself has there.
    before = sa.exists().where(waiting, Job.project_id < job.project_id)
    after = sa.exists().where(waiting, Job.project_id > job.project_id)
    return bool(session.scalar(sa.select(sa.or_(before, after))))


def _standings() -> sa.Select[str, float, float]:
    """The projects with queued jobs of `:klass`, what they have used, and what of that is running.

    They are found by one look into the index each: DISTINCT would read every job's entry.
    """
    klass, time = sa.bindparam("klass", type_=sa.Text), sa.bindparam("time", type_=sa.Double)
    found = (
        sa.select(sa.func.min(Job.project_id).label("project_id"))
        .where(Job.state == "queued", Job.klass == klass)
        .cte("waiting", recursive=True)
    )
    later = aliased(Job)
    following = sa.select(sa.func.min(later.project_id)).where(
        later.state == "queued", later.klass == klass, later.project_id > found.c.project_id
    )
    waiting = found.union_all(
        sa.select(following.scalar_subquery()).where(found.c.project_id.is_not(None))
    )
    running = (
        sa.select(Job.project_id, sa.func.sum(_COST).label("seconds"))
        .where(Job.state == "running", Job.klass == klass)
        .group_by(Job.project_id)
        .subquery()
    )
    busy = sa.func.coalesce(running.c.seconds, 0.0)
    used = sa.func.coalesce(Share.used, 0.0) + busy
    share = sa.and_(Share.project_id == waiting.c.project_id, Share.klass == klass)
    return (
        sa.select(waiting.c.project_id, used, busy)
        .select_from(waiting)
        .outerjoin(Share, share)
        .outerjoin(running, running.c.project_id == waiting.c.project_id)
        .where(waiting.c.project_id.is_not(None))
        # Among those that were away it is the turn of who has used least.
        .order_by(sa.case((used > time, used), else_=time), used, waiting.c.project_id)
    )


# Made once: that takes longer than asking.
_FIRST = _standings().limit(1)
_OTHERS = _standings().offset(1)
