"""INSERT … ON CONFLICT, which SQLite and PostgreSQL write alike."""

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from store.tables import Base


def insert(session: Session, table: type[Base]) -> sqlite.Insert | postgresql.Insert:
    """The session's dialect's INSERT, which has `on_conflict_do_update`."""
    if session.get_bind().dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)
