"""Batches: many jobs accepted together, followed as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, insert, select

from bitwright.core.errors import BitwrightError, NotFound
from bitwright.jobs import states
from bitwright.jobs.cancel import cancel
from bitwright.jobs.create import NewJob, create_many
from bitwright.jobs.engine import Transaction
from bitwright.jobs.rooms import Rooms
from bitwright.jobs.tables import batches, jobs
from bitwright.jobs.values import timestamp


@dataclass(frozen=True)
class Batch:
    """counts: jobs by state; those that were removed since are missing from it."""

    id: str
    tenant: str
    request: dict[str, Any]
    created_at: float
    total: int
    counts: Mapping[str, int]

    @property
    def done(self) -> bool:
        return self.counts[states.QUEUED] + self.counts[states.RUNNING] == 0

    def to_json(self) -> dict[str, Any]:
        ended = sum(self.counts[state] for state in states.TERMINAL)
        return {
            "id": self.id,
            "state": self._state(),
            "done": self.done,
            "total": self.total,
            "counts": dict(self.counts),
            "fraction": ended / self.total,
            "created_at": timestamp(self.created_at),
            "request": self.request,
        }

    def _state(self) -> str:
        """One word for the whole: failed or cancelled when any job is, once all have ended."""
        if not self.done:
            started = self.counts[states.QUEUED] < self.total
            return states.RUNNING if started else states.QUEUED
        for state in (states.FAILED, states.CANCELLED):
            if self.counts[state]:
                return state
        return states.SUCCEEDED


def create_batch(
    tx: Transaction, batch_id: str, tenant: str, request: Mapping[str, Any], news: Sequence[NewJob], queued_limit: int,
    rooms: Rooms, writing_limit: int | None = None,
) -> Batch:  # fmt: skip
    """All of its jobs or none; an id that is there already (a repeat) is given as it is.

    Raises TooManyRequests, and NotFound for an id of another tenant.
    """
    known = tx.connection.execute(select(batches.c.id).where(batches.c.id == batch_id)).one_or_none()
    if known is None:
        values = {"id": batch_id, "tenant": tenant, "request": dict(request), "created_at": tx.now, "total": len(news)}
        tx.connection.execute(insert(batches).values(**values))
        for answer in create_many(tx, news, queued_limit, rooms, writing_limit):
            if isinstance(answer, BitwrightError):
                raise answer
    return get_batch(tx, batch_id, tenant)


def get_batch(tx: Transaction, batch_id: str, tenant: str) -> Batch:
    """Raises NotFound, also for a batch of another tenant."""
    known = batch_id.isascii() and batch_id.isprintable()
    statement = select(batches).where(batches.c.id == batch_id, batches.c.tenant == tenant)
    row = tx.connection.execute(statement).mappings().one_or_none() if known else None
    if row is None:
        raise NotFound("there is no such batch", got=ascii(batch_id)[:60])
    counted = select(jobs.c.state, func.count()).where(jobs.c.batch_id == batch_id, jobs.c.parent_id.is_(None))
    counts = dict.fromkeys(states.STATES, 0)
    counts |= {found[0]: found[1] for found in tx.connection.execute(counted.group_by(jobs.c.state))}
    return Batch(**{**row, "counts": counts})


def cancel_batch(tx: Transaction, batch_id: str, tenant: str) -> Batch:
    get_batch(tx, batch_id, tenant)
    open_jobs = select(jobs.c.id).where(jobs.c.batch_id == batch_id, jobs.c.state.in_((states.QUEUED, states.RUNNING)))
    for job_id in tx.connection.execute(open_jobs.order_by(jobs.c.id)).scalars().all():
        cancel(tx, job_id, tenant)
    return get_batch(tx, batch_id, tenant)
