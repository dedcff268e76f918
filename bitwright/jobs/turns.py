"""Whose turn it is: higher priority first, then the tenant with the fewest running jobs, then the longest waiting job.

A tenant that submits a thousand jobs does not keep another one's single job waiting behind them. Each tenant's first
job is found through the index `jobs_turn`, so a claim costs about the same however long the queue is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import (
    ColumnClause,
    ColumnElement,
    Select,
    Table,
    TextClause,
    column,
    func,
    literal_column,
    select,
    text,
)

from bitwright.jobs import states
from bitwright.jobs.engine import Transaction
from bitwright.jobs.tables import jobs

#: Tenants compared in one claim, those with the fewest running jobs first.
COMPARED = 32
#: Written out, not bound: only then does SQLite use an index that holds these rows alone.
WAITING = jobs.c.state == literal_column(f"'{states.QUEUED}'")
_QUEUED = f"state = '{states.QUEUED}'"


def next_in_turn(tx: Transaction, due: list[ColumnElement[bool]], active: int | None) -> str | None:
    """Id of the job to run next, its row locked; None when nothing may run now.

    active: jobs of one tenant that may run at once. Claims at the very same moment may pass it by one each."""
    running = _running(tx)
    tenants = [t for t in _waiting_tenants(tx) if active is None or running.get(t, 0) < active]
    tenants.sort(key=lambda tenant: running.get(tenant, 0))
    heads = []
    if len(tenants) > 1:
        for tenant in tenants[:COMPARED]:
            head = tx.connection.execute(_first(due, tenant, jobs.c.priority, jobs.c.created_at)).one_or_none()
            if head is not None:
                heads.append((-head.priority, running.get(tenant, 0), head.created_at, tenant))
        tenants = [head[-1] for head in sorted(heads)]
    for tenant in tenants:
        pick = _first(due, tenant, jobs.c.id).with_for_update(skip_locked=True)
        found = tx.connection.execute(pick).scalar_one_or_none()
        if found is not None:
            return str(found)
    return None


def _first(due: list[ColumnElement[bool]], tenant: str, *columns: ColumnElement[Any]) -> Select[Any]:
    order = (jobs.c.priority.desc(), jobs.c.created_at, jobs.c.id)
    return select(*columns).where(jobs.c.tenant == tenant, *due).order_by(*order).limit(1)


def _running(tx: Transaction) -> dict[str, int]:
    """Tenant -> jobs that some worker holds; a job parked at its barrier holds nothing."""
    held = (jobs.c.state == states.RUNNING, jobs.c.owner.is_not(None))
    rows = tx.connection.execute(select(jobs.c.tenant, func.count()).where(*held).group_by(jobs.c.tenant))
    return {row[0]: row[1] for row in rows}


def _waiting_tenants(tx: Transaction) -> list[str]:
    """Tenants with queued jobs, by jumping from one to the next in the index."""
    # Left to itself, SQLite takes an index of states here and reads the whole queue at every claim: slow, and it fills
    # the page cache of each connection (https://sqlite.org/lang_indexedby.html).
    sqlite = tx.connection.dialect.name == "sqlite"
    return list(_jump(tx, text("jobs INDEXED BY jobs_turn") if sqlite else jobs))


def _jump(tx: Transaction, source: Table | TextClause) -> Iterator[str]:
    tenant: ColumnClause[str] = column("tenant")
    waiting = select(func.min(tenant)).select_from(source).where(text(_QUEUED))
    last = tx.connection.execute(waiting).scalar_one()
    while last is not None:
        yield last
        last = tx.connection.execute(waiting.where(tenant > last)).scalar_one()
