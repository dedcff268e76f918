"""The tables of jobs. Times are seconds since 1970 (UTC) as doubles; JSON columns hold plain JSON text.

`attempt` is the fencing token: it grows by one at each claim and never shrinks; a worker's write names the attempt it
was given and changes nothing once another worker has claimed the job. `tries` counts attempts that ended badly.
"""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, CheckConstraint, Column, Double, Index, Integer, MetaData, String, Table, Text

from bitwright.jobs.states import STATES

metadata = MetaData()

#: A 64-bit row number on every database (SQLite numbers rows by itself only when the type reads INTEGER).
RowId = BigInteger().with_variant(Integer, "sqlite")
Json = JSON(none_as_null=True)

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
    CheckConstraint("state IN ({})".format(", ".join(f"'{state}'" for state in STATES)), name="jobs_state"),
    Index("jobs_claim", "state", "queue", "run_after"),
    Index("jobs_lease", "state", "lease_until"),
    Index("jobs_list", "tenant", "created_at", "id"),
    Index("jobs_work", "work_digest"),
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
