"""Messages that leave only after the commit that wrote them."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from store import backoff
from store.tables import Job, Outbox

DOORBELL = "doorbell"


def enqueue(session: Session, topic: str, payload: dict[str, Any], now: datetime) -> None:
    """Adds a message to the transaction."""
    session.add(Outbox(topic=topic, payload=payload, created_at=now))


def due(session: Session, limit: int = 100) -> list[Outbox]:
    """The oldest messages that are not marked as sent."""
    return list(session.scalars(sa.select(Outbox).order_by(Outbox.id).limit(limit)))


def mark_sent(session: Session, ids: Iterable[int]) -> None:
    """Deletes messages that left. One that is sent but not marked is sent again."""
    session.execute(sa.delete(Outbox).where(Outbox.id.in_(list(ids))))


def waiting(session: Session, now: datetime, longer_than: timedelta) -> dict[str, int]:
    """How many jobs of each class could be claimed, and have been queued for longer than that.

    A job whose time of being put off is over counts at once: nobody has rung for it. So does one
    that was queued after `now`: a clock was set back, and nobody knows how long it waits.
    """
    overdue = sa.or_(
        Job.not_before.is_not(None), Job.queued_at < now - longer_than, Job.queued_at > now
    )
    rows = session.execute(
        sa.select(Job.klass, sa.func.count().label("jobs"))
        .where(Job.state == "queued", overdue, backoff.free(now))
        .group_by(Job.klass)
        .order_by(Job.klass)
    )
    return {row.klass: row.jobs for row in rows}
