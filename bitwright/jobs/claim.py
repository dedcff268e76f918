"""A worker's hold on a job: claim, renew, and the writes that need it. Each names its attempt, the fencing token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, or_, select

from bitwright.jobs import states
from bitwright.jobs.change import STEP_SUFFIX, change, clean, held, record, requeue
from bitwright.jobs.ending import end, park
from bitwright.jobs.engine import Transaction
from bitwright.jobs.tables import UNDELAYED, jobs
from bitwright.jobs.turns import WAITING, next_in_turn
from bitwright.jobs.values import Job

#: First pause before another try, in seconds; each further one doubles, up to the longest.
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 300.0


def pause(tries: int) -> float:
    """Seconds to wait before the next try, after `tries` that ended badly."""
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** max(0, tries - 1))


def any_due(tx: Transaction, queues: Sequence[str] | None) -> bool:
    """Whether `claim` may find something."""
    return tx.connection.execute(select(jobs.c.id).where(*_due(tx, queues)).limit(1)).first() is not None


def claim(
    tx: Transaction, owner: str, queues: Sequence[str] | None, lease_seconds: float, active: int | None = None
) -> Job | None:
    """The due job whose turn it is (see `bitwright.jobs.turns`), now running for `owner`; None when there is none.

    active: jobs of one tenant that may run at once."""
    found = next_in_turn(tx, _due(tx, queues), active)
    if found is None:
        return None
    values = {
        "state": states.RUNNING,
        "owner": owner,
        "attempt": jobs.c.attempt + 1,
        "lease_until": tx.now + lease_seconds,
        "started_at": tx.now,
    }
    job = change(tx, (jobs.c.id == found, jobs.c.state == states.QUEUED), values)
    if job is not None:
        record(tx, job.id, "started", {"attempt": job.attempt, "worker": clean(owner)})
    return job


def _due(tx: Transaction, queues: Sequence[str] | None) -> list[ColumnElement[bool]]:
    due = [
        WAITING,
        or_(jobs.c.run_after <= tx.now, UNDELAYED),
        or_(jobs.c.deadline.is_(None), jobs.c.deadline > tx.now),
    ]
    if queues is not None:
        due.append(jobs.c.queue.in_([*queues, *(queue + STEP_SUFFIX for queue in queues)]))
    return due


def renew(tx: Transaction, job_id: str, attempt: int, lease_seconds: float) -> Job | None:
    """Prolong the lease; None when it is no longer ours: stop the work and discard it."""
    return change(tx, held(job_id, attempt), {"lease_until": tx.now + lease_seconds})


def progress(tx: Transaction, job_id: str, attempt: int, stage: str, fraction: float, message: str) -> bool:
    values = {"stage": clean(stage), "fraction": min(1.0, max(0.0, fraction)), "message": clean(message)}
    if change(tx, held(job_id, attempt), values) is None:
        return False
    record(tx, job_id, "progress", values)
    return True


def succeed(tx: Transaction, job_id: str, attempt: int, result: Any, measures: Mapping[str, Any] | None = None) -> bool:
    where = held(job_id, attempt)
    return end(tx, where, states.SUCCEEDED, result=result, measures=dict(measures or {})) is not None


def fail(tx: Transaction, job_id: str, attempt: int, problem: Mapping[str, Any]) -> bool:
    return end(tx, held(job_id, attempt), states.FAILED, error=dict(problem)) is not None


def fan_out(tx: Transaction, job_id: str, attempt: int, stage: str, steps: Sequence[Mapping[str, Any]]) -> bool:
    """Park the job until these steps have ended; it is then claimed again, by anyone. A cancelled job ends instead."""
    if confirm_cancel(tx, job_id, attempt):
        return True
    return park(tx, held(job_id, attempt), clean(stage), [dict(step) for step in steps])


def confirm_cancel(tx: Transaction, job_id: str, attempt: int) -> bool:
    """The child is dead: a requested cancel becomes the state."""
    where = (*held(job_id, attempt), jobs.c.cancel_requested_at.is_not(None))
    return end(tx, where, states.CANCELLED) is not None


def release(tx: Transaction, job_id: str, attempt: int) -> bool:
    """Give the job back because the worker stops: due at once, not counted as a try. A cancelled job ends instead."""
    if confirm_cancel(tx, job_id, attempt):
        return True
    return requeue(tx, held(job_id, attempt), "worker-stopping", delay=0.0, values={}) is not None


def retry(tx: Transaction, job_id: str, attempt: int, problem: Mapping[str, Any], max_attempts: int) -> bool:
    """The attempt ended badly in a way that may pass: queued again after a pause, or failed when no try is left."""
    row = tx.connection.execute(select(jobs.c.tries).where(*held(job_id, attempt)).with_for_update()).one_or_none()
    if row is None:
        return False
    return spend_try(tx, job_id, attempt, int(row.tries), dict(problem), max_attempts)


def spend_try(
    tx: Transaction,
    job_id: str,
    attempt: int,
    tries: int,
    problem: dict[str, Any],
    max_attempts: int,
    waited: float = 0.0,
) -> bool:
    """Count a bad end; shared by a worker that reports one and the reaper that finds one.

    waited: seconds that the job has lain idle already; they count towards the pause."""
    where = held(job_id, attempt)
    if end(tx, (*where, jobs.c.cancel_requested_at.is_not(None)), states.CANCELLED) is not None:
        return True
    if tries + 1 >= max_attempts:
        return end(tx, where, states.FAILED, error=problem | {"attempts": tries + 1}) is not None
    reason = str(problem.get("detail", ""))
    return (
        requeue(tx, where, clean(reason), delay=max(0.0, pause(tries + 1) - waited), values={"tries": jobs.c.tries + 1})
        is not None
    )
