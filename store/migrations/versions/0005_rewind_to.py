"""A job may name an earlier checkpoint of its model."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

ID = sa.String(64).with_variant(sa.String(64, collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column("job", sa.Column("rewind_to", ID))
    op.create_index(op.f("ix_job_rewind_to"), "job", ["rewind_to"])


def downgrade() -> None:
    op.drop_index(op.f("ix_job_rewind_to"), "job")
    op.drop_column("job", "rewind_to")
