"""Accepting a job: idempotency key, job row, event and doorbell in one transaction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, insert, select
from sqlalchemy.dialects import postgresql, sqlite

from bitwright.core.canonical import digest_json
from bitwright.core.errors import Conflict, IdempotencyMismatch, InvalidInput
from bitwright.jobs import states
from bitwright.jobs.change import record, ring
from bitwright.jobs.engine import Transaction
from bitwright.jobs.ids import new_id
from bitwright.jobs.tables import idempotency, jobs
from bitwright.jobs.values import Created, Job, job_of

#: How long a key is remembered, in seconds: 24 h, the long end of what services do (research/06 A2).
KEY_SECONDS = 24 * 3600.0
_INSERT: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


@dataclass(frozen=True)
class NewJob:
    """What a caller asks for. `request`: plain JSON with a `kind`; `deadline`: seconds since 1970;
    `work_digest`: names the work by its content, so that equal finished work answers at once."""

    request: Mapping[str, Any]
    tenant: str = "default"
    key: str | None = None
    queue: str = "cpu"
    priority: int = 0
    deadline: float | None = None
    run_after: float | None = None
    work_digest: str | None = None
    traceparent: str | None = None

    @property
    def fingerprint(self) -> str:
        return digest_json({"request": self.request, "priority": self.priority, "deadline": self.deadline})


def create(tx: Transaction, new: NewJob) -> Created:
    """Raises IdempotencyMismatch when the key came with another request, InvalidInput for a key that is none."""
    job_id = new_id(tx.now)
    if new.key is not None:
        known = _claim_key(tx, new, job_id)
        if known is not None:
            return Created(known, replayed=True)
    earlier = find_finished(tx, new.tenant, new.work_digest)
    job = _insert(tx, new, job_id, earlier)
    record(tx, job.id, "queued", {"kind": job.kind, "queue": job.queue})
    if earlier is None:
        ring(tx, job)
    else:
        record(tx, job.id, states.SUCCEEDED, {"same_work_as": earlier.id})
    return Created(job, cached=earlier is not None)


def find_finished(tx: Transaction, tenant: str, work_digest: str | None) -> Job | None:
    """The latest succeeded job of this tenant with equal work."""
    if work_digest is None:
        return None
    statement = (
        select(jobs)
        .where(jobs.c.work_digest == work_digest, jobs.c.tenant == tenant, jobs.c.state == states.SUCCEEDED)
        .order_by(jobs.c.created_at.desc())
        .limit(1)
    )
    row = tx.connection.execute(statement).mappings().one_or_none()
    return job_of(row) if row is not None else None


def _claim_key(tx: Transaction, new: NewJob, job_id: str) -> Job | None:
    """Take the key for `job_id`, or give the job that has it. A concurrent twin waits here for the other's commit."""
    key = _checked_key(str(new.key))
    mine = (idempotency.c.tenant == new.tenant, idempotency.c.key == key)
    tx.connection.execute(delete(idempotency).where(*mine, idempotency.c.created_at < tx.now - KEY_SECONDS))
    insert_new = _INSERT[tx.connection.dialect.name](idempotency)
    statement = insert_new.values(
        tenant=new.tenant, key=key, fingerprint=new.fingerprint, job_id=job_id, created_at=tx.now
    ).on_conflict_do_nothing()
    if tx.connection.execute(statement.returning(idempotency.c.job_id)).scalar_one_or_none() is not None:
        return None
    fingerprint, known = tx.connection.execute(
        select(idempotency.c.fingerprint, idempotency.c.job_id).where(*mine)
    ).one()
    if fingerprint != new.fingerprint:
        raise IdempotencyMismatch(
            f"the idempotency key {key!r} was used with another request", hint="use a new key for a new request"
        )
    row = tx.connection.execute(select(jobs).where(jobs.c.id == known)).mappings().one_or_none()
    if row is None:
        raise Conflict(f"the job of idempotency key {key!r} has been removed", hint="use a new key")
    return job_of(row)


def _checked_key(key: str) -> str:
    if not 1 <= len(key) <= 255 or not key.isascii() or not key.isprintable():
        raise InvalidInput(
            "the idempotency key is not valid", expected="1 to 255 printable ASCII characters", got=ascii(key)[:80]
        )
    return key


def _insert(tx: Transaction, new: NewJob, job_id: str, earlier: Job | None) -> Job:
    done = (
        {"state": states.SUCCEEDED, "result": earlier.result, "finished_at": tx.now, "fraction": 1.0} if earlier else {}
    )
    values: dict[str, Any] = {
        "id": job_id,
        "tenant": new.tenant,
        "kind": str(new.request["kind"]),
        "request": dict(new.request),
        "state": states.QUEUED,
        "version": 1,
        "attempt": 0,
        "tries": 0,
        "queue": new.queue,
        "priority": new.priority,
        "run_after": tx.now if new.run_after is None else new.run_after,
        "created_at": tx.now,
        "deadline": new.deadline,
        "stage": "",
        "fraction": 0.0,
        "message": "",
        "work_digest": new.work_digest,
        "traceparent": new.traceparent,
        **done,
    }
    row = tx.connection.execute(insert(jobs).values(**values).returning(*jobs.c)).mappings().one()
    return job_of(row)
