"""Leases and leads count beats instead of comparing wall clocks."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

ID = sa.String(64).with_variant(sa.String(64, collation="C"), "postgresql")
AT = sa.DateTime(timezone=True)


def _leaders(*columns: sa.Column[Any]) -> None:
    # Who leads asks again within seconds, so that nothing is lost with the rows.
    op.drop_table("leader")
    op.create_table(
        "leader",
        sa.Column("name", ID, nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        *columns,
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leader")),
    )


def upgrade() -> None:
    op.add_column("job", sa.Column("beat", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("job", sa.Column("lease_seconds", sa.Double()))
    op.drop_column("job", "lease_until")
    _leaders(
        sa.Column("beat", sa.BigInteger(), nullable=False), sa.Column("seen_at", AT, nullable=False)
    )


def downgrade() -> None:
    op.add_column("job", sa.Column("lease_until", AT))
    # What was running is taken back at once.
    op.execute("UPDATE job SET lease_until = updated_at WHERE state = 'running'")
    op.drop_column("job", "lease_seconds")
    op.drop_column("job", "beat")
    _leaders(sa.Column("until", AT, nullable=False))
