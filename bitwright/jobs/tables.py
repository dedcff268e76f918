"""The tables of jobs. Times are seconds since 1970 (UTC) as doubles; JSON columns hold plain JSON text.

`attempt` is the fencing token: it grows by one at each claim and never shrinks; a worker's write names the attempt it
was given and changes nothing once another worker has claimed the job. `tries` counts attempts that ended badly.

A step is a job of its own with a parent: claimed, leased, fenced and reaped like any other, hidden from those who ask
for jobs. Its parent is parked meanwhile: running, with no owner, `steps_left` counting down to the barrier.

Columns and tables are only ever added within one major version, so that old and new processes run side by side.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    Double,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    text,
)

from bitwright.jobs.states import STATES

metadata = MetaData()

#: A 64-bit row number on every database (SQLite numbers rows by itself only when the type reads INTEGER).
RowId = BigInteger().with_variant(Integer, "sqlite")
Json = JSON(none_as_null=True)


def _only(condition: str) -> dict[str, Any]:
    """The rows that an index holds, for both databases."""
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


jobs = Table(
    "jobs",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("tenant", String(64), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("request", Json, nullable=False),
    Column("state", String(16), nullable=False),
    Column("version", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("queue", String(32), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("owner", String(128)),
    Column("lease_until", Double),
    Column("run_after", Double, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("started_at", Double),
    Column("finished_at", Double),
    Column("deadline", Double),
    Column("cancel_requested_at", Double),
    Column("stage", Text, nullable=False),
    Column("fraction", Double, nullable=False),
    Column("message", Text, nullable=False),
    Column("result", Json),
    Column("error", Json),
    Column("work_digest", String(80)),
    Column("traceparent", String(64)),
    Column("parent_id", String(36)),
    Column("parent_attempt", Integer),
    Column("steps_total", Integer),
    Column("steps_left", Integer),
    Column("batch_id", String(36)),
    Column("callback", Text),
    Column("measures", Json),
    CheckConstraint("state IN ({})".format(", ".join(f"'{state}'" for state in STATES)), name="jobs_state"),
    Index("jobs_claim", "state", "queue", "run_after"),
    Index("jobs_lease", "state", "lease_until"),
    Index("jobs_list", "tenant", "created_at", "id"),
    Index("jobs_work", "work_digest"),
    Index("jobs_turn", "tenant", text("priority DESC"), "created_at", "id", **_only("state = 'queued'")),
    Index("jobs_parent", "parent_id", **_only("parent_id IS NOT NULL")),
    Index("jobs_batch", "batch_id", **_only("batch_id IS NOT NULL")),
    Index("jobs_finished", "finished_at", **_only("finished_at IS NOT NULL")),
    Index("jobs_deadline", "deadline", **_only("deadline IS NOT NULL AND finished_at IS NULL")),
)

events = Table(
    "job_events",
    metadata,
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("job_id", String(36), nullable=False),
    Column("at", Double, nullable=False),
    Column("type", String(32), nullable=False),
    Column("data", Json, nullable=False),
    Index("job_events_job", "job_id", "id"),
    sqlite_autoincrement=True,
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("topic", String(64), nullable=False),
    Column("payload", Json, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("due", Double, nullable=False),
    Column("sent_at", Double),
    Index("outbox_unsent", "sent_at", "due"),
    sqlite_autoincrement=True,
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("tenant", String(64), primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("fingerprint", String(80), nullable=False),
    Column("job_id", String(36), nullable=False),
    Column("created_at", Double, nullable=False),
)

batches = Table(
    "batches",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("tenant", String(64), nullable=False),
    Column("request", Json, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("total", Integer, nullable=False),
    Index("batches_list", "tenant", "created_at", "id"),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("tenant", String(64), nullable=False),
    Column("job_id", String(36), nullable=False),
    Column("url", Text, nullable=False),
    Column("type", String(32), nullable=False),
    Column("payload", Json, nullable=False),
    Column("state", String(16), nullable=False),
    Column("tries", Integer, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("due", Double, nullable=False),
    Column("delivered_at", Double),
    Column("status", Integer),
    Column("error", Text),
    Index("deliveries_due", "state", "due"),
    Index("deliveries_list", "tenant", "created_at", "id"),
    Index("deliveries_job", "job_id"),
)

#: One row: the oldest program that may still work on this database.
schema_floor = Table("schema_floor", metadata, Column("oldest", String(32), nullable=False))

#: Jobs that never had to wait for a time are due whatever the clock says: it may have been set back since.
UNDELAYED = jobs.c.run_after <= jobs.c.created_at
