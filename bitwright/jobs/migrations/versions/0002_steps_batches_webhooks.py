"""Steps with a barrier, batches, webhook deliveries, measures; only additions: programs of 0001 go on working."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

#: The oldest program that this schema serves.
OLDEST = "0001"
_JSON = sa.JSON(none_as_null=True)


def upgrade() -> None:
    for column in (
        sa.Column("parent_id", sa.String(36)),
        sa.Column("parent_attempt", sa.Integer),
        sa.Column("steps_total", sa.Integer),
        sa.Column("steps_left", sa.Integer),
        sa.Column("batch_id", sa.String(36)),
        sa.Column("callback", sa.Text),
        sa.Column("measures", _JSON),
    ):
        op.add_column("jobs", column)
    turn: list[str | sa.TextClause] = ["tenant", sa.text("priority DESC"), "created_at", "id"]
    op.create_index("jobs_turn", "jobs", turn, **_only("state = 'queued'"))
    op.create_index("jobs_parent", "jobs", ["parent_id"], **_only("parent_id IS NOT NULL"))
    op.create_index("jobs_batch", "jobs", ["batch_id"], **_only("batch_id IS NOT NULL"))
    op.create_index("jobs_finished", "jobs", ["finished_at"], **_only("finished_at IS NOT NULL"))
    _create_batches()
    _create_deliveries()
    floor = op.create_table("schema_floor", sa.Column("oldest", sa.String(32), nullable=False))
    op.bulk_insert(floor, [{"oldest": OLDEST}])


def _only(condition: str) -> dict[str, Any]:
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}


def _create_batches() -> None:
    op.create_table(
        "batches",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("request", _JSON, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("total", sa.Integer, nullable=False),
    )
    op.create_index("batches_list", "batches", ["tenant", "created_at", "id"])


def _create_deliveries() -> None:
    op.create_table(
        "deliveries",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("job_id", sa.String(36), nullable=False),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("type", sa.String(32), nullable=False),
        sa.Column("payload", _JSON, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("due", sa.Double, nullable=False),
        sa.Column("delivered_at", sa.Double),
        sa.Column("status", sa.Integer),
        sa.Column("error", sa.Text),
    )
    op.create_index("deliveries_due", "deliveries", ["state", "due"])
    op.create_index("deliveries_list", "deliveries", ["tenant", "created_at", "id"])
    op.create_index("deliveries_job", "deliveries", ["job_id"])
