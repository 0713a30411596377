"""A job may be put off."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

AT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("job", sa.Column("put_offs", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("job", sa.Column("not_before", AT))
    op.add_column("job", sa.Column("held_from", AT))


def downgrade() -> None:
    for name in ("held_from", "not_before", "put_offs"):
        op.drop_column("job", name)
