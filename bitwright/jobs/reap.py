"""What nobody holds any more: expired leases, passed deadlines, old rows."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import CursorResult, delete, exists, or_, select, update

from bitwright.core.errors import OutOfResources, WorkerLost
from bitwright.jobs import states
from bitwright.jobs.claim import spend_try
from bitwright.jobs.ending import end
from bitwright.jobs.engine import Transaction
from bitwright.jobs.tables import batches, deliveries, events, idempotency, jobs, outbox

#: Rows taken at once, so that a sweep never holds the write lock for long.
BATCH = 100
#: Waiting at a barrier: held by nobody.
PARKED = (jobs.c.state == states.RUNNING) & jobs.c.owner.is_(None)
#: Seconds that a lease at least runs on after its worker's death, with the default settings (30 s, renewed each 10 s).
PAUSED = 20.0


@dataclass(frozen=True)
class Swept:
    """lost: leases taken back; overdue: jobs failed by their deadline."""

    lost: int = 0
    overdue: int = 0


def reap(tx: Transaction, max_attempts: int) -> Swept:
    """Only expired leases are taken back, never 'everything from before I started' (research/06 B5)."""
    return Swept(_take_back(tx, max_attempts), _fail_overdue(tx))


def expire_owner(tx: Transaction, owner: str) -> int:
    """End the leases of an owner that is known to be dead (its supervisor saw it exit), without waiting them out."""
    statement = (
        update(jobs)
        .where(jobs.c.state == states.RUNNING, jobs.c.owner == owner, jobs.c.lease_until > tx.now)
        .values(lease_until=tx.now - 1e-3, version=jobs.c.version + 1)
    )
    return _count(tx, statement)


def collect_garbage(tx: Transaction, before: float) -> int:
    """Remove jobs that ended before that time, with their events; the number of jobs."""
    old = select(jobs.c.id).where(jobs.c.state.in_(states.TERMINAL), jobs.c.finished_at < before)
    for table in (events, deliveries):
        tx.connection.execute(delete(table).where(table.c.job_id.in_(old)))
    tx.connection.execute(
        delete(batches).where(batches.c.created_at < before, ~exists().where(jobs.c.batch_id == batches.c.id))
    )
    return _count(tx, delete(jobs).where(jobs.c.state.in_(states.TERMINAL), jobs.c.finished_at < before))


def forget_messages(tx: Transaction, before: float) -> None:
    """Remove doorbell messages and idempotency keys from before that time; a job still queued is rung by the relay."""
    tx.connection.execute(delete(outbox).where(outbox.c.due < before))
    tx.connection.execute(delete(idempotency).where(idempotency.c.created_at < before))


def _take_back(tx: Transaction, max_attempts: int) -> int:
    expired = (
        select(jobs.c.id, jobs.c.attempt, jobs.c.tries, jobs.c.lease_until)
        .where(jobs.c.state == states.RUNNING, jobs.c.lease_until < tx.now)
        .order_by(jobs.c.lease_until)
        .limit(BATCH)
        .with_for_update(skip_locked=True)
    )
    rows = tx.connection.execute(expired).all()
    problem = lost_problem("its lease ran out")
    # The lease itself was a pause: a job whose worker died for no fault of its own starts again at once.
    return sum(spend_try(tx, row.id, row.attempt, row.tries, problem, max_attempts, PAUSED) for row in rows)


def lost_problem(reason: str) -> dict[str, object]:
    """The problem of a job whose process died."""
    return WorkerLost(
        f"the process doing the work was lost: {reason}",
        hint="see the job's log; look for memory limits and crashes of native code",
    ).to_problem()


def _fail_overdue(tx: Transaction) -> int:
    # Queued or parked, said so that SQLite takes the index `jobs_deadline`: naming a state, it would read all of that.
    overdue = (
        select(jobs.c.id)
        .where(jobs.c.deadline <= tx.now, jobs.c.finished_at.is_(None), jobs.c.owner.is_(None))
        .limit(BATCH)
        .with_for_update(skip_locked=True)
    )
    problem = OutOfResources(
        "the deadline passed before a worker was free", hint="add workers or set a later deadline"
    ).to_problem()
    ids = tx.connection.execute(overdue).scalars().all()
    ended = (
        end(tx, (jobs.c.id == found, or_(jobs.c.state == states.QUEUED, PARKED)), states.FAILED, error=problem)
        for found in ids
    )
    return sum(job is not None for job in ended)


def _count(tx: Transaction, statement: object) -> int:
    result = tx.connection.execute(statement)  # type: ignore[call-overload]
    assert isinstance(result, CursorResult)
    return result.rowcount
