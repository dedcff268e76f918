"""Webhook rows: written when a job ends, in that transaction; sent later, by whoever finds them due.

Standard Webhooks: the first try at once, then at the pauses of LADDER (the last one about 75 hours after the first);
410 or nobody there at the end disables the address until someone asks for a delivery again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from sqlalchemy import insert, or_, select, tuple_, update

from bitwright.core.errors import NotFound
from bitwright.jobs.engine import Transaction
from bitwright.jobs.ids import new_id
from bitwright.jobs.tables import deliveries
from bitwright.jobs.values import Delivery, Job, timestamp

PENDING, DELIVERED, FAILED, DISABLED = "pending", "delivered", "failed", "disabled"
STATES = (PENDING, DELIVERED, FAILED, DISABLED)
#: Seconds between tries (standard-webhooks specification, "Retries": 5 s, 5 min, 30 min, 2, 5, 10, 14, 20, 24 h).
LADDER = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
#: A sender holds a delivery for this long; longer than its own time limit, so that two never send at once.
HOLD_SECONDS = 120.0
GONE = 410
_FIELDS = tuple(field.name for field in fields(Delivery))


def announce(tx: Transaction, job: Job) -> None:
    """A thin event: names and state; the receiver reads the job itself."""
    earlier = select(deliveries.c.state).where(deliveries.c.tenant == job.tenant, deliveries.c.url == job.callback)
    last = tx.connection.execute(earlier.order_by(deliveries.c.created_at.desc()).limit(1)).scalar_one_or_none()
    kind = f"job.{job.state}"
    data = {"job_id": job.id, "kind": job.kind, "state": job.state, "batch": job.batch_id, "url": f"/v1/jobs/{job.id}"}
    values = {
        "id": f"msg_{new_id(tx.now)}",
        "tenant": job.tenant,
        "job_id": job.id,
        "url": job.callback,
        "type": kind,
        "payload": {"type": kind, "timestamp": timestamp(tx.now), "data": data},
        "state": DISABLED if last == DISABLED else PENDING,
        "tries": 0,
        "created_at": tx.now,
        "due": tx.now,
    }
    tx.connection.execute(insert(deliveries).values(**values))


def take_due(tx: Transaction, limit: int = 20) -> list[Delivery]:
    """Due deliveries, held for HOLD_SECONDS: a sender that dies loses them to the next one."""
    due = (
        select(deliveries.c.id)
        .where(
            deliveries.c.state == PENDING, or_(deliveries.c.due <= tx.now, deliveries.c.due <= deliveries.c.created_at)
        )
        .order_by(deliveries.c.due)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    ids = tx.connection.execute(due).scalars().all()
    if not ids:
        return []
    held = update(deliveries).where(deliveries.c.id.in_(ids)).values(due=tx.now + HOLD_SECONDS)
    rows = tx.connection.execute(held.returning(*deliveries.c)).mappings()
    return [_delivery(row) for row in rows]


def settle(
    tx: Transaction, found: Delivery, *, status: int | None, error: str | None, retry_after: float, jitter: float
) -> Delivery:
    """Write down how a try went. retry_after: seconds the receiver asked for; jitter: factor of the pause, about 1.

    A response body is never kept: it could carry what the receiver's network holds to whoever named the address."""
    tries = found.tries + 1
    values: dict[str, Any] = {"tries": tries, "status": status, "error": error}
    if error is None:
        values |= {"state": DELIVERED, "delivered_at": tx.now}
    elif status == GONE:
        values |= {"state": DISABLED}
        others = (deliveries.c.tenant == found.tenant, deliveries.c.url == found.url, deliveries.c.state == PENDING)
        tx.connection.execute(update(deliveries).where(*others).values(state=DISABLED))
    elif tries > len(LADDER):
        values |= {"state": FAILED}
    else:
        values |= {"state": PENDING, "due": tx.now + max(LADDER[tries - 1] * jitter, retry_after)}
    statement = update(deliveries).where(deliveries.c.id == found.id).values(**values).returning(*deliveries.c)
    return _delivery(tx.connection.execute(statement).mappings().one())


def resend(tx: Transaction, delivery_id: str, tenant: str) -> Delivery:
    """Send it again now, whatever became of it: same id, a new ladder. Raises NotFound."""
    get(tx, delivery_id, tenant)
    values = {"state": PENDING, "due": tx.now, "tries": 0, "error": None, "status": None, "delivered_at": None}
    statement = update(deliveries).where(deliveries.c.id == delivery_id).values(**values).returning(*deliveries.c)
    return _delivery(tx.connection.execute(statement).mappings().one())


def get(tx: Transaction, delivery_id: str, tenant: str) -> Delivery:
    statement = select(deliveries).where(deliveries.c.id == delivery_id, deliveries.c.tenant == tenant)
    known = delivery_id.isascii() and delivery_id.isprintable()
    row = tx.connection.execute(statement).mappings().one_or_none() if known else None
    if row is None:
        raise NotFound("there is no such delivery", got=ascii(delivery_id)[:60])
    return _delivery(row)


def page(
    tx: Transaction,
    tenant: str,
    *,
    states: Sequence[str] = (),
    job_id: str | None = None,
    after: tuple[float, str] | None = None,
    limit: int = 50,
) -> list[Delivery]:
    """Newest first; `after`: (created_at, id) of the last delivery of the page before."""
    order = (deliveries.c.created_at.desc(), deliveries.c.id.desc())
    statement = select(deliveries).where(deliveries.c.tenant == tenant).order_by(*order).limit(limit)
    if states:
        statement = statement.where(deliveries.c.state.in_(states))
    if job_id is not None:
        statement = statement.where(deliveries.c.job_id == job_id)
    if after is not None:
        statement = statement.where(tuple_(deliveries.c.created_at, deliveries.c.id) < tuple_(*after))
    return [_delivery(row) for row in tx.connection.execute(statement).mappings()]


def _delivery(row: Any) -> Delivery:
    return Delivery(**{name: row[name] for name in _FIELDS})
