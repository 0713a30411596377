"""A model may be several files."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

ID = sa.String(64).with_variant(sa.String(64, collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "model_file",
        sa.Column("model_id", ID, nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("project_id", ID, nullable=False),
        sa.Column("sha256", ID, nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["model_id"], ["model.id"], name=op.f("fk_model_file_model_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["project.id"],
            name=op.f("fk_model_file_project_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["sha256"], ["blob.sha256"], name=op.f("fk_model_file_sha256")),
        sa.PrimaryKeyConstraint("model_id", "path", name=op.f("pk_model_file")),
    )
    op.create_index(op.f("ix_model_file_project_id"), "model_file", ["project_id"])
    op.create_index(op.f("ix_model_file_sha256"), "model_file", ["sha256"])


def downgrade() -> None:
    op.drop_table("model_file")
