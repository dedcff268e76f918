"""Reading: one job, a page of jobs, events, counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Select, func, select, tuple_

from bitwright.core.errors import NotFound
from bitwright.jobs import states
from bitwright.jobs.change import plain_queue
from bitwright.jobs.engine import Transaction
from bitwright.jobs.tables import events, jobs, outbox
from bitwright.jobs.values import Event, Finished, Job, Statistics, job_of


def get(tx: Transaction, job_id: str, tenant: str | None = None) -> Job:
    """Raises NotFound, also for a job of another tenant: who may not see it learns nothing."""
    where = [jobs.c.id == _storable(job_id)]
    if tenant is not None:
        where += [jobs.c.tenant == tenant, jobs.c.parent_id.is_(None)]
    row = tx.connection.execute(select(jobs).where(*where)).mappings().one_or_none()
    if row is None:
        raise NotFound("there is no such job", got=ascii(job_id)[:60])
    return job_of(row)


def version_of(tx: Transaction, job_id: str) -> int:
    """The job's version alone: cheap enough to be asked often. Raises NotFound."""
    version = tx.connection.execute(select(jobs.c.version).where(jobs.c.id == _storable(job_id))).scalar_one_or_none()
    if version is None:
        raise NotFound("there is no such job", got=ascii(job_id)[:60])
    return int(version)


def page(
    tx: Transaction,
    *,
    tenant: str | None = None,
    states: Sequence[str] = (),
    kinds: Sequence[str] = (),
    batch: str | None = None,
    after: tuple[float, str] | None = None,
    limit: int = 50,
) -> list[Job]:
    """Newest first; `after`: (created_at, id) of the last job of the page before."""
    statement = _listed(select(jobs), tenant, states, kinds, batch, after).limit(limit)
    return [job_of(row) for row in tx.connection.execute(statement).mappings()]


#: Members of a request that a search looks at: what a person knows a job by. Never the plans that some carry.
SEARCHED = ("model", "budget", "engine", "metric", "recipe", "quantizer", "granularity", "to")


def search(
    tx: Transaction,
    words: Sequence[str],
    *,
    limit: int,
    most: int,
    tenant: str | None = None,
    states: Sequence[str] = (),
    kinds: Sequence[str] = (),
    batch: str | None = None,
    after: tuple[float, str] | None = None,
) -> tuple[list[Job], tuple[float, str] | None]:
    """(at most `limit` jobs that hold every word, newest first; where to go on, or None at the end of the list).

    Looks at no more than `most` jobs after `after`, so that one call is bounded whatever is asked for.
    """
    members = [jobs.c.request[name].as_string().label(name) for name in SEARCHED]
    statement = select(jobs.c.created_at, jobs.c.id, jobs.c.kind, *members)
    statement = _listed(statement, tenant, states, kinds, batch, after).limit(most + 1)
    wanted = [word.casefold() for word in words]
    hits, last, looked = list[str](), after, 0
    for row in tx.connection.execute(statement):
        if looked == most or len(hits) == limit:
            break
        looked, last = looked + 1, (row.created_at, row.id)
        text = " ".join(str(value) for value in row[1:] if value is not None).casefold()
        if all(word in text for word in wanted):
            hits.append(row.id)
    else:
        last = None
    rows = tx.connection.execute(_listed(select(jobs).where(jobs.c.id.in_(hits)))).mappings()
    return [job_of(row) for row in rows], last


def _listed(
    statement: Select[Any],
    tenant: str | None = None,
    states: Sequence[str] = (),
    kinds: Sequence[str] = (),
    batch: str | None = None,
    after: tuple[float, str] | None = None,
) -> Select[Any]:
    """Whole jobs (no steps) that fit the filters, newest first."""
    statement = statement.where(jobs.c.parent_id.is_(None)).order_by(jobs.c.created_at.desc(), jobs.c.id.desc())
    if batch is not None:
        statement = statement.where(jobs.c.batch_id == batch)
    if tenant is not None:
        statement = statement.where(jobs.c.tenant == tenant)
    if states:
        statement = statement.where(jobs.c.state.in_(states))
    if kinds:
        statement = statement.where(jobs.c.kind.in_(kinds))
    if after is not None:
        statement = statement.where(tuple_(jobs.c.created_at, jobs.c.id) < tuple_(*after))
    return statement


def running_attempts(tx: Transaction) -> frozenset[tuple[str, int]]:
    """(job id, attempt) of everything that runs now."""
    rows = tx.connection.execute(select(jobs.c.id, jobs.c.attempt).where(jobs.c.state == states.RUNNING))
    return frozenset((row[0], row[1]) for row in rows)


def events_after(tx: Transaction, job_id: str, last_id: int = 0, limit: int = 1000) -> list[Event]:
    """Events of one job with ids above `last_id`, in order."""
    last = min(max(last_id, 0), 2**63 - 1)
    statement = (
        select(events)
        .where(events.c.job_id == _storable(job_id), events.c.id > last)
        .order_by(events.c.id)
        .limit(limit)
    )
    return [
        Event(row["id"], row["job_id"], row["at"], row["type"], row["data"])
        for row in tx.connection.execute(statement).mappings()
    ]


def made(tx: Transaction, tenant: str, member: str, value: str, *, begins: bool = False) -> bool:
    """Whether some job of that tenant has a result with this member; begins: one that begins so."""
    found = jobs.c.result[member].as_string()
    named = found.startswith(value, autoescape=True) if begins else found == value
    statement = select(jobs.c.id).where(jobs.c.tenant == tenant, jobs.c.state == states.SUCCEEDED, named).limit(1)
    return tx.connection.execute(statement).first() is not None


def finished_since(tx: Transaction, moment: float, limit: int) -> list[Finished]:
    """Whole jobs (no steps) that ended after `moment`, newest first."""
    columns = (jobs.c.kind, jobs.c.state, jobs.c.created_at, jobs.c.started_at, jobs.c.finished_at, jobs.c.measures)
    statement = select(*columns).where(jobs.c.finished_at > moment, jobs.c.parent_id.is_(None))
    rows = tx.connection.execute(statement.order_by(jobs.c.finished_at.desc()).limit(limit))
    return [
        Finished(
            row.kind,
            row.state,
            (row.started_at or row.finished_at) - row.created_at,
            row.finished_at - (row.started_at or row.finished_at),
            row.measures or {},
        )
        for row in rows
    ]


def statistics(tx: Transaction) -> Statistics:
    count = func.count()
    by_state = dict.fromkeys(states.STATES, 0)
    whole = select(jobs.c.state, count).where(jobs.c.parent_id.is_(None)).group_by(jobs.c.state)
    by_state |= {row[0]: row[1] for row in tx.connection.execute(whole)}
    waiting = jobs.c.state == states.QUEUED
    by_queue: Counter[str] = Counter()
    for queue, found in tx.connection.execute(select(jobs.c.queue, count).where(waiting).group_by(jobs.c.queue)):
        by_queue[plain_queue(queue)] += found
    oldest: dict[str, float] = {}
    due = select(jobs.c.queue, func.min(jobs.c.run_after)).where(waiting).group_by(jobs.c.queue)
    for queue, since in tx.connection.execute(due):
        name = plain_queue(queue)
        oldest[name] = max(oldest.get(name, 0.0), tx.now - since)
    expired = select(count).where(jobs.c.state == states.RUNNING, jobs.c.lease_until < tx.now)
    unsent = select(count).select_from(outbox).where(outbox.c.sent_at.is_(None))
    return Statistics(
        states=by_state,
        queued=by_queue,
        oldest=oldest,
        expired_leases=tx.connection.execute(expired).scalar_one(),
        unsent=tx.connection.execute(unsent).scalar_one(),
    )


def _storable(job_id: str) -> str:
    """A job id as a database can compare it: NUL and lone surrogates, which no id holds, name no job."""
    return job_id if job_id.isascii() and job_id.isprintable() else ""
