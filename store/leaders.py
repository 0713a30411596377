"""Who does a task that only one process may do at a time: a lead by name.

The leader counts its beats up; whoever has seen the same beat for as long as a lead lasts, by its
own clock, takes over from exactly that beat. No wall clock is compared: `seen_at` is only shown.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.orm import Session

from store.tables import Leader
from store.upsert import insert


@dataclass(frozen=True)
class Lead:
    """Who leads, at its latest beat."""

    holder: str
    beat: int


NOBODY = Lead("", 0)


def lead(
    session: Session, name: str, holder: str, now: datetime, *, over: Lead | None = None
) -> Lead:
    """Takes or renews the lead of `name`, and says who has it now.

    `holder` gets it where it has it, nobody has it, or it is still as `over` says, which is for the
    caller to have seen unchanged for long enough. Compare-and-set: of several that ask at once,
    one gets it.
    """
    free = Leader.holder == holder
    if over is not None:
        free = sa.or_(free, sa.and_(Leader.holder == over.holder, Leader.beat == over.beat))
    statement = insert(session, Leader).values(name=name, holder=holder, beat=1, seen_at=now)
    won = session.execute(
        statement.on_conflict_do_update(
            index_elements=[Leader.name],
            set_={"holder": holder, "beat": Leader.beat + 1, "seen_at": now},
            where=free,
        ).returning(Leader.holder, Leader.beat)
    ).first()
    found = (
        won
        or session.execute(sa.select(Leader.holder, Leader.beat).where(Leader.name == name)).first()
    )
    return NOBODY if found is None else Lead(found.holder, found.beat)


def rewrite(session: Session) -> None:
    """Writes the leads as they are, which fails where the database can only be read: a full disk.

    A transaction that only reads would not tell.
    """
    session.execute(sa.update(Leader).values(beat=Leader.beat))


def resign(session: Session, name: str, holder: str) -> None:
    """Gives the lead up, so that the next one need not wait."""
    session.execute(sa.delete(Leader).where(Leader.name == name, Leader.holder == holder))


def alive(session: Session, name: str, now: datetime, within: timedelta) -> bool:
    """Whether somebody seems to lead, to be shown: it beat no further than `within` from `now`.

    After a clock was set the answer may be wrong until the next beat.
    """
    beat = sa.exists().where(
        Leader.name == name, Leader.seen_at > now - within, Leader.seen_at < now + within
    )
    return bool(session.scalar(sa.select(beat)))
