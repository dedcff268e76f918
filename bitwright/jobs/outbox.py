"""Doorbell messages on their way out: written with the job, published after the commit, at least once.

A message says only that a queue has work: losing, doubling or reordering messages changes nothing but the time that a
job waits. Messages of jobs that are due later (a retry after a pause) stay here until then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, or_, select, update

from bitwright.jobs import states
from bitwright.jobs.change import plain_queue
from bitwright.jobs.engine import Transaction
from bitwright.jobs.tables import UNDELAYED, jobs, outbox


@dataclass(frozen=True)
class Message:
    """queue: where the work waits; job_id: the job that rang."""

    id: int
    queue: str
    job_id: str


def due_messages(tx: Transaction, limit: int = 200) -> list[Message]:
    """Unsent and due, oldest first; those that another relay holds are passed over. Held until the transaction ends."""
    statement = (
        select(outbox)
        .where(outbox.c.sent_at.is_(None), or_(outbox.c.due <= tx.now, outbox.c.due <= outbox.c.created_at))
        .order_by(outbox.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    rows = tx.connection.execute(statement).mappings()
    return [Message(row["id"], row["topic"], row["payload"]["job_id"]) for row in rows]


def mark_sent(tx: Transaction, ids: Sequence[int]) -> None:
    tx.connection.execute(update(outbox).where(outbox.c.id.in_(ids)).values(sent_at=tx.now))


def waiting_longer_than(tx: Transaction, seconds: float) -> dict[str, int]:
    """Queue -> jobs that have been due for so long. Their messages may be lost (the broker was emptied, say).

    A job from the future was accepted before the clock was set back: nobody knows how long it has been due."""
    long_ago = or_(jobs.c.run_after <= tx.now - seconds, (jobs.c.created_at > tx.now) & UNDELAYED)
    statement = select(jobs.c.queue, func.count()).where(jobs.c.state == states.QUEUED, long_ago).group_by(jobs.c.queue)
    found: Counter[str] = Counter()
    for queue, count in tx.connection.execute(statement):
        found[plain_queue(queue)] += count
    return dict(found)
