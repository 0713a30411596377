"""The first tables."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

ID = sa.String(64).with_variant(sa.String(64, collation="C"), "postgresql")
TEXT = sa.Text()
AT = sa.DateTime(timezone=True)
JSON = sa.JSON().with_variant(JSONB(), "postgresql")
SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
ACCEPTED = sa.text("state != 'rejected'")


def upgrade() -> None:
    op.create_table(
        "blob",
        sa.Column("sha256", ID, nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("touched_at", AT, nullable=False),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_blob")),
    )
    op.create_index(op.f("ix_blob_touched_at"), "blob", ["touched_at"])
    op.create_table(
        "leader",
        sa.Column("name", ID, nullable=False),
        sa.Column("holder", TEXT, nullable=False),
        sa.Column("until", AT, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leader")),
    )
    op.create_table(
        "outbox",
        sa.Column("id", SERIAL, nullable=False),
        sa.Column("topic", TEXT, nullable=False),
        sa.Column("payload", JSON, nullable=False),
        sa.Column("created_at", AT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
    )
    op.create_table(
        "project",
        sa.Column("id", ID, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("created_at", AT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_project")),
    )
    op.create_table(
        "api_key",
        sa.Column("id", ID, nullable=False),
        sa.Column("project_id", ID, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("sha256", ID, nullable=False),
        sa.Column("start", TEXT, nullable=False),
        sa.Column("created_at", AT, nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"], ["project.id"], name=op.f("fk_api_key_project_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_key")),
        sa.UniqueConstraint("sha256", name=op.f("uq_api_key_sha256")),
    )
    op.create_index(op.f("ix_api_key_project_id"), "api_key", ["project_id"])
    op.create_table(
        "dataset",
        sa.Column("id", ID, nullable=False),
        sa.Column("project_id", ID, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("sha256", ID, nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("format", TEXT),
        sa.Column("facts", JSON),
        sa.Column("error", JSON),
        sa.Column("created_at", AT, nullable=False),
        sa.Column("updated_at", AT, nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"], ["project.id"], name=op.f("fk_dataset_project_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["sha256"], ["blob.sha256"], name=op.f("fk_dataset_sha256")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dataset")),
    )
    op.create_index(op.f("ix_dataset_project_id"), "dataset", ["project_id"])
    op.create_index(op.f("ix_dataset_sha256"), "dataset", ["sha256"])
    op.create_index(
        "uq_dataset_project_id_sha256",
        "dataset",
        ["project_id", "sha256"],
        unique=True,
        sqlite_where=ACCEPTED,
        postgresql_where=ACCEPTED,
    )
    op.create_table(
        "job",
        sa.Column("id", ID, nullable=False),
        sa.Column("project_id", ID, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("klass", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("subject_id", ID),
        sa.Column("model_id", ID),
        sa.Column("spec", JSON, nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("retry_of", ID),
        sa.Column("idempotency_key", TEXT),
        sa.Column("request_sha256", ID),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("phase", TEXT),
        sa.Column("progress", JSON),
        sa.Column("error", JSON),
        sa.Column("summary", JSON),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("attempts_without_checkpoint", sa.Integer(), nullable=False),
        sa.Column("token", sa.Integer(), nullable=False),
        sa.Column("worker_id", TEXT),
        sa.Column("lease_until", AT),
        sa.Column("last_seq", sa.Integer(), nullable=False),
        sa.Column("created_at", AT, nullable=False),
        sa.Column("updated_at", AT, nullable=False),
        sa.Column("queued_at", AT, nullable=False),
        sa.Column("started_at", AT),
        sa.Column("finished_at", AT),
        sa.ForeignKeyConstraint(
            ["project_id"], ["project.id"], name=op.f("fk_job_project_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job")),
        sa.UniqueConstraint("project_id", "idempotency_key", name="uq_job_idempotency_key"),
    )
    op.create_index("ix_job_claim", "job", ["state", "klass", "priority", "created_at"])
    op.create_index(op.f("ix_job_model_id"), "job", ["model_id"])
    op.create_index(op.f("ix_job_project_id"), "job", ["project_id"])
    op.create_index(op.f("ix_job_subject_id"), "job", ["subject_id"])
    op.create_table(
        "model",
        sa.Column("id", ID, nullable=False),
        sa.Column("project_id", ID, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("sha256", ID, nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("format", TEXT),
        sa.Column("facts", JSON),
        sa.Column("error", JSON),
        sa.Column("created_at", AT, nullable=False),
        sa.Column("updated_at", AT, nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"], ["project.id"], name=op.f("fk_model_project_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["sha256"], ["blob.sha256"], name=op.f("fk_model_sha256")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model")),
    )
    op.create_index(op.f("ix_model_project_id"), "model", ["project_id"])
    op.create_index(op.f("ix_model_sha256"), "model", ["sha256"])
    op.create_index(
        "uq_model_project_id_sha256",
        "model",
        ["project_id", "sha256"],
        unique=True,
        sqlite_where=ACCEPTED,
        postgresql_where=ACCEPTED,
    )
    op.create_table(
        "artifact",
        sa.Column("id", ID, nullable=False),
        sa.Column("project_id", ID, nullable=False),
        sa.Column("job_id", ID, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("format", TEXT, nullable=False),
        sa.Column("sha256", ID, nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at", AT, nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"], ["job.id"], name=op.f("fk_artifact_job_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["project_id"], ["project.id"], name=op.f("fk_artifact_project_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["sha256"], ["blob.sha256"], name=op.f("fk_artifact_sha256")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_artifact")),
        sa.UniqueConstraint("job_id", "name", name=op.f("uq_artifact_job_id")),
    )
    op.create_index(op.f("ix_artifact_project_id"), "artifact", ["project_id"])
    op.create_index(op.f("ix_artifact_sha256"), "artifact", ["sha256"])
    op.create_table(
        "attempt",
        sa.Column("id", ID, nullable=False),
        sa.Column("project_id", ID, nullable=False),
        sa.Column("job_id", ID, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("worker_id", TEXT, nullable=False),
        sa.Column("started_at", AT, nullable=False),
        sa.Column("finished_at", AT),
        sa.Column("outcome", TEXT),
        sa.Column("error", JSON),
        sa.ForeignKeyConstraint(
            ["job_id"], ["job.id"], name=op.f("fk_attempt_job_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["project_id"], ["project.id"], name=op.f("fk_attempt_project_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_attempt")),
        sa.UniqueConstraint("job_id", "number", name=op.f("uq_attempt_job_id")),
    )
    op.create_index(op.f("ix_attempt_project_id"), "attempt", ["project_id"])
    op.create_table(
        "checkpoint",
        sa.Column("job_id", ID, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("project_id", ID, nullable=False),
        sa.Column("sha256", ID, nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("created_at", AT, nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"], ["job.id"], name=op.f("fk_checkpoint_job_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["project.id"],
            name=op.f("fk_checkpoint_project_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["sha256"], ["blob.sha256"], name=op.f("fk_checkpoint_sha256")),
        sa.PrimaryKeyConstraint("job_id", "name", name=op.f("pk_checkpoint")),
    )
    op.create_index(op.f("ix_checkpoint_project_id"), "checkpoint", ["project_id"])
    op.create_index(op.f("ix_checkpoint_sha256"), "checkpoint", ["sha256"])
    op.create_table(
        "job_event",
        sa.Column("job_id", ID, nullable=False),
        sa.Column("seq", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("project_id", ID, nullable=False),
        sa.Column("at", AT, nullable=False),
        sa.Column("body", JSON, nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"], ["job.id"], name=op.f("fk_job_event_job_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["project_id"], ["project.id"], name=op.f("fk_job_event_project_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("job_id", "seq", name=op.f("pk_job_event")),
    )
    op.create_index(op.f("ix_job_event_project_id"), "job_event", ["project_id"])
    op.create_table(
        "job_input",
        sa.Column("job_id", ID, nullable=False),
        sa.Column("role", TEXT, nullable=False),
        sa.Column("project_id", ID, nullable=False),
        sa.Column("dataset_id", ID, nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"], ["job.id"], name=op.f("fk_job_input_job_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["project_id"], ["project.id"], name=op.f("fk_job_input_project_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("job_id", "role", name=op.f("pk_job_input")),
    )
    op.create_index(op.f("ix_job_input_dataset_id"), "job_input", ["dataset_id"])
    op.create_index(op.f("ix_job_input_project_id"), "job_input", ["project_id"])


def downgrade() -> None:
    for table in (
        "job_input",
        "job_event",
        "checkpoint",
        "attempt",
        "artifact",
        "model",
        "job",
        "dataset",
        "api_key",
        "project",
        "outbox",
        "leader",
        "blob",
    ):
        op.drop_table(table)
