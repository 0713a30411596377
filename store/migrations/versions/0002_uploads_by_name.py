"""The same bytes may be uploaded under several names; checkpoint events tell no path."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

ACCEPTED = sa.text("state != 'rejected'")
TABLES = ("model", "dataset")


def _unique(table: str, *columns: str) -> None:
    op.create_index(
        f"uq_{table}_{'_'.join(columns)}",
        table,
        list(columns),
        unique=True,
        sqlite_where=ACCEPTED,
        postgresql_where=ACCEPTED,
    )


def upgrade() -> None:
    for table in TABLES:
        op.drop_index(f"uq_{table}_project_id_sha256", table_name=table)
        _unique(table, "project_id", "sha256", "name")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("UPDATE job_event SET body = body - 'path' WHERE body->>'type' = 'checkpoint'")
    else:
        op.execute(
            "UPDATE job_event SET body = json_remove(body, '$.path') "
            "WHERE json_extract(body, '$.type') = 'checkpoint'"
        )


def downgrade() -> None:
    for table in TABLES:
        op.drop_index(f"uq_{table}_project_id_sha256_name", table_name=table)
        _unique(table, "project_id", "sha256")
