"""Messages that leave only after the commit that wrote them."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

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


def waiting(session: Session, older_than: datetime) -> dict[str, int]:
    """How many jobs of each class have been queued since before that time."""
    rows = session.execute(
        sa.select(Job.klass, sa.func.count().label("jobs"))
        .where(Job.state == "queued", Job.queued_at < older_than)
        .group_by(Job.klass)
        .order_by(Job.klass)
    )
    return {row.klass: row.jobs for row in rows}
