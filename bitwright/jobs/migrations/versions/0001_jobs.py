"""Jobs, events, outbox, idempotency keys, and the triggers that keep ended jobs as they are."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ROW_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_JSON = sa.JSON(none_as_null=True)

_SQLITE = """
CREATE TRIGGER jobs_ended BEFORE UPDATE ON jobs
WHEN OLD.state IN ('succeeded', 'failed', 'cancelled') OR (OLD.state = 'queued' AND NEW.state = 'succeeded')
  OR NEW.attempt < OLD.attempt OR NEW.version <= OLD.version AND NEW.state <> OLD.state
BEGIN SELECT RAISE(ABORT, 'a job that has ended never changes'); END
"""
_POSTGRESQL = (
    """
CREATE FUNCTION bitwright_jobs_ended() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'a job that has ended never changes'; END $$
""",
    """
CREATE TRIGGER jobs_ended BEFORE UPDATE ON jobs FOR EACH ROW
WHEN (OLD.state IN ('succeeded', 'failed', 'cancelled') OR (OLD.state = 'queued' AND NEW.state = 'succeeded')
  OR NEW.attempt < OLD.attempt OR (NEW.version <= OLD.version AND NEW.state <> OLD.state))
EXECUTE FUNCTION bitwright_jobs_ended()
""",
)


def upgrade() -> None:
    _create_jobs()
    _create_others()
    for statement in (_SQLITE,) if op.get_bind().dialect.name == "sqlite" else _POSTGRESQL:
        op.execute(statement)


def _create_jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("request", _JSON, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("queue", sa.String(32), nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("owner", sa.String(128)),
        sa.Column("lease_until", sa.Double),
        sa.Column("run_after", sa.Double, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("started_at", sa.Double),
        sa.Column("finished_at", sa.Double),
        sa.Column("deadline", sa.Double),
        sa.Column("cancel_requested_at", sa.Double),
        sa.Column("stage", sa.Text, nullable=False),
        sa.Column("fraction", sa.Double, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("result", _JSON),
        sa.Column("error", _JSON),
        sa.Column("work_digest", sa.String(80)),
        sa.Column("traceparent", sa.String(64)),
        sa.CheckConstraint("state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')", name="jobs_state"),
    )
    op.create_index("jobs_claim", "jobs", ["state", "queue", "run_after"])
    op.create_index("jobs_lease", "jobs", ["state", "lease_until"])
    op.create_index("jobs_list", "jobs", ["tenant", "created_at", "id"])
    op.create_index("jobs_work", "jobs", ["work_digest"])


def _create_others() -> None:
    op.create_table(
        "job_events",
        sa.Column("id", _ROW_ID, primary_key=True, autoincrement=True),
        sa.Column("job_id", sa.String(36), nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("type", sa.String(32), nullable=False),
        sa.Column("data", _JSON, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("job_events_job", "job_events", ["job_id", "id"])
    op.create_table(
        "outbox",
        sa.Column("id", _ROW_ID, primary_key=True, autoincrement=True),
        sa.Column("topic", sa.String(64), nullable=False),
        sa.Column("payload", _JSON, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("due", sa.Double, nullable=False),
        sa.Column("sent_at", sa.Double),
        sqlite_autoincrement=True,
    )
    op.create_index("outbox_unsent", "outbox", ["sent_at", "due"])
    op.create_table(
        "idempotency",
        sa.Column("tenant", sa.String(64), primary_key=True),
        sa.Column("key", sa.String(255), primary_key=True),
        sa.Column("fingerprint", sa.String(80), nullable=False),
        sa.Column("job_id", sa.String(36), nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
    )
