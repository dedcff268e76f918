"""The one way in which a job row changes: a conditional UPDATE, then its event, in the caller's transaction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, insert, update

from bitwright.jobs.engine import Transaction
from bitwright.jobs.states import RUNNING
from bitwright.jobs.tables import events, jobs, outbox
from bitwright.jobs.values import Job, job_of

#: Longest progress message or stage that is kept, in characters.
MESSAGE_LIMIT = 500
#: Steps of jobs of queue `cpu` wait in `cpu.steps`.
STEP_SUFFIX = ".steps"


def held(job_id: str, attempt: int) -> tuple[ColumnElement[bool], ...]:
    """The fence: the row is this attempt's, and has not ended."""
    return (jobs.c.id == job_id, jobs.c.attempt == attempt, jobs.c.state == RUNNING)


def change(tx: Transaction, where: tuple[ColumnElement[bool], ...], values: Mapping[str, Any]) -> Job | None:
    """Update the one row that `where` names and count its version up; None when no row does."""
    statement = update(jobs).where(*where).values(version=jobs.c.version + 1, **values).returning(*jobs.c)
    row = tx.connection.execute(statement).mappings().one_or_none()
    return job_of(row) if row is not None else None


def record(tx: Transaction, job_id: str, kind: str, data: Mapping[str, Any] | None = None) -> None:
    """Append an event. Always after the job's row was written: the row lock makes event ids grow in commit order."""
    tx.connection.execute(insert(events).values(job_id=job_id, at=tx.now, type=kind, data=dict(data or {})))


def plain_queue(queue: str) -> str:
    """The queue that a worker names: steps wait in one of their own, which programs that know no steps never see."""
    return queue.removesuffix(STEP_SUFFIX)


def ring(tx: Transaction, job: Job) -> None:
    """Put a doorbell message in the outbox: the relay publishes it after the commit, when it is due."""
    values = {
        "topic": plain_queue(job.queue),
        "payload": {"job_id": job.id},
        "created_at": tx.now,
        "due": job.run_after,
    }
    tx.connection.execute(insert(outbox).values(**values))


def requeue(
    tx: Transaction, where: tuple[ColumnElement[bool], ...], reason: str, *, delay: float, values: Mapping[str, Any]
) -> Job | None:
    """Give a running job back to the queue, due after `delay` seconds."""
    run_after = tx.now + delay
    job = change(
        tx,
        where,
        {"state": "queued", "owner": None, "lease_until": None, "run_after": run_after, **values},
    )
    if job is not None:
        record(tx, job.id, "requeued", {"reason": reason, "tries": job.tries, "delay": delay})
        ring(tx, job)
    return job


def clean(text: str) -> str:
    """Text that every database stores: printable, of bounded length."""
    kept = "".join(c if c.isprintable() else " " for c in text[:MESSAGE_LIMIT])
    return kept.encode("utf-8", "replace").decode("utf-8")
