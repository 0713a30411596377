"""Workers are shared among projects; a job has a place in line."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

ID = sa.String(64).with_variant(sa.String(64, collation="C"), "postgresql")
TEXT = sa.Text()

# What `store.queue` gives a new job, for those that are there: by age.
LINE_UP = """
    UPDATE job SET arrival = line.number, place = (9 - job.priority) * 281474976710656 + line.number
    FROM (SELECT id, row_number() OVER (ORDER BY created_at, id) AS number FROM job) AS line
    WHERE line.id = job.id
"""


def upgrade() -> None:
    for name, type_ in (
        ("arrival", sa.BigInteger()),
        ("place", sa.BigInteger()),
        ("held_seconds", sa.Double()),
        ("cost", sa.Double()),
    ):
        op.add_column("job", sa.Column(name, type_, nullable=False, server_default="0"))
    op.execute(LINE_UP)
    op.drop_index("ix_job_claim", "job")
    queue = ["state", "klass", "project_id", "place", "not_before"]
    op.create_index("ix_job_queue", "job", queue)
    op.create_index(op.f("ix_job_arrival"), "job", ["arrival"])
    op.create_table(
        "share",
        sa.Column("project_id", ID, nullable=False),
        sa.Column("klass", TEXT, nullable=False),
        sa.Column("used", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"], ["project.id"], name=op.f("fk_share_project_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("project_id", "klass", name=op.f("pk_share")),
    )
    op.create_index(op.f("ix_share_project_id"), "share", ["project_id"])
    op.create_table(
        "virtual_time",
        sa.Column("klass", TEXT, nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("klass", name=op.f("pk_virtual_time")),
    )


def downgrade() -> None:
    op.drop_table("virtual_time")
    op.drop_table("share")
    op.drop_index(op.f("ix_job_arrival"), "job")
    op.drop_index("ix_job_queue", "job")
    op.create_index("ix_job_claim", "job", ["state", "klass", "priority", "created_at"])
    for name in ("cost", "held_seconds", "place", "arrival"):
        op.drop_column("job", name)
