"""Which worker processes live, and the sandbox their children run in."""

from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.orm import Session

from store.tables import Worker
from store.upsert import insert

SEEN_EVERY = timedelta(seconds=30)
_SILENT = 3 * SEEN_EVERY


def seen(session: Session, name: str, sandbox: str, now: datetime) -> None:
    """Notes that a worker lives; rows of those that fell silent go."""
    session.execute(sa.delete(Worker).where(sa.not_(_lately(now))))
    row = insert(session, Worker).values(name=name, sandbox=sandbox, seen_at=now)
    session.execute(
        row.on_conflict_do_update(
            index_elements=[Worker.name], set_={"sandbox": sandbox, "seen_at": now}
        )
    )


def gone(session: Session, name: str) -> None:
    """Notes that a worker has ended."""
    session.execute(sa.delete(Worker).where(Worker.name == name))


def levels(session: Session, now: datetime) -> dict[str, int]:
    """Level of sandbox -> how many living workers have it."""
    query = (
        sa.select(Worker.sandbox, sa.func.count().label("workers"))
        .where(_lately(now))
        .group_by(Worker.sandbox)
        .order_by(Worker.sandbox)
    )
    return {row.sandbox: row.workers for row in session.execute(query)}


def _lately(now: datetime) -> sa.ColumnElement[bool]:
    # Not in the future either: after a clock was set back, who died would live for as long.
    return sa.and_(Worker.seen_at >= now - _SILENT, Worker.seen_at <= now + _SILENT)
