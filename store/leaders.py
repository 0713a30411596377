"""Who does a task that only one process may do at a time: a lease by name."""

from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.orm import Session

from store.tables import Leader
from store.upsert import insert


def lead(session: Session, name: str, holder: str, ttl: timedelta, now: datetime) -> bool:
    """Whether `holder` leads `name` until `now + ttl`.

    The leader renews by asking again; another takes over once the time has run out.
    Compare-and-set: of several that ask at once, one gets True.
    """
    until = now + ttl
    mine_or_free = sa.or_(Leader.holder == holder, Leader.until <= now)
    statement = insert(session, Leader).values(name=name, holder=holder, until=until)
    won = session.execute(
        statement.on_conflict_do_update(
            index_elements=[Leader.name],
            set_={"holder": holder, "until": until},
            where=mine_or_free,
        ).returning(Leader.name)
    ).first()
    return won is not None


def resign(session: Session, name: str, holder: str) -> None:
    """Gives the lead up, so that the next one need not wait for it to run out."""
    session.execute(sa.delete(Leader).where(Leader.name == name, Leader.holder == holder))
