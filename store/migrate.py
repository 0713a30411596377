"""Brings the database to the newest schema: `python -m store.migrate`."""

from functools import lru_cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from store.db import Database
from store.settings import Settings, get_settings

# Any number will do, as long as every version of the service uses the same.
ADVISORY_LOCK = 0x5EC47E


def config() -> Config:
    """Alembic's configuration; no file is needed."""
    made = Config()
    folder = Path(__file__).parent / "migrations"
    made.set_main_option("script_location", str(folder).replace("%", "%%"))
    made.set_main_option("path_separator", "os")
    return made


def upgrade(settings: Settings) -> None:
    """Runs the missing migrations, all in one transaction.

    Several processes may start at once: the write lock (SQLite) or an advisory lock (PostgreSQL)
    makes them wait for the first, after which nothing is missing.
    """
    database = Database(settings, patient=True)
    try:
        with database.engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.exec_driver_sql("SET LOCAL lock_timeout = 0")
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK})")
            alembic = config()
            alembic.attributes["connection"] = connection
            command.upgrade(alembic, "head")
    finally:
        database.dispose()


def is_current(database: Database) -> bool:
    """Whether the database has the newest schema."""
    with database.read() as session:
        found = MigrationContext.configure(session.connection()).get_current_revision()
    return found == _newest()


@lru_cache(maxsize=1)
def _newest() -> str | None:
    """The newest revision there is; reading the scripts takes longer than all else of readiness."""
    return ScriptDirectory.from_config(config()).get_current_head()


if __name__ == "__main__":
    upgrade(get_settings())
