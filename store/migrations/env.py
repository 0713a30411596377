"""Run by Alembic: on the connection that `store.migrate` passes, else on the settings' database."""

from alembic import context
from sqlalchemy import Connection

from store.db import engine_for
from store.settings import get_settings
from store.tables import Base


def run(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=Base.metadata, transactional_ddl=True)
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    with engine_for(get_settings()).begin() as own:
        run(own)
