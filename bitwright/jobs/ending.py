"""The end of a job in one transaction: state, result, event, webhook, and for a step the barrier of its parent.

The barrier is one conditional UPDATE of the parked parent: it counts a step off and, with the last one, puts the parent
back into the queue. Two steps that end together queue up at that row, so exactly one of them is the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, case, select, update

from bitwright.jobs import states
from bitwright.jobs.bulk import insert_rows
from bitwright.jobs.change import STEP_SUFFIX, change, record, ring
from bitwright.jobs.deliveries import announce
from bitwright.jobs.engine import Transaction
from bitwright.jobs.ids import new_id
from bitwright.jobs.tables import events, jobs
from bitwright.jobs.values import Job


def end(
    tx: Transaction,
    where: tuple[ColumnElement[bool], ...],
    state: str,
    *,
    result: Any = None,
    error: Any = None,
    measures: dict[str, Any] | None = None,
) -> Job | None:
    """Bring a job into a terminal state; None when `where` names no row (any more)."""
    values: dict[str, Any] = {"state": state, "finished_at": tx.now, "owner": None, "lease_until": None}
    if result is not None:
        values |= {"result": result, "fraction": 1.0}
    if error is not None:
        values |= {"error": error}
    if measures:
        values |= {"measures": measures}
    job = change(tx, where, values)
    if job is None:
        return None
    record(tx, job.id, state, {"error": error} if error is not None else {})
    if job.parent_id is not None:
        _count_off(tx, job)
    elif job.steps_left:
        _drop_steps(tx, job)
    if job.callback is not None:
        announce(tx, job)
    return job


def park(tx: Transaction, where: tuple[ColumnElement[bool], ...], stage: str, steps: list[dict[str, Any]]) -> bool:
    """Give a running job up until its steps have ended: they become rows, due at once, in the place that it had."""
    values = {"owner": None, "lease_until": None, "steps_total": len(steps), "steps_left": len(steps), "stage": stage}
    job = change(tx, where, values)
    if job is None:
        return False
    record(tx, job.id, "parked", {"stage": stage, "steps": len(steps)})
    rows = [_step_row(tx, job, stage, number, step) for number, step in enumerate(steps)]
    insert_rows(tx, jobs, rows)
    told = {"at": tx.now, "type": states.QUEUED, "data": {"parent": job.id}}
    insert_rows(tx, events, [{"job_id": row["id"], **told} for row in rows])
    for _ in rows:
        ring(tx, job)
    return True


def _step_row(tx: Transaction, job: Job, stage: str, number: int, step: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": new_id(tx.now),
        "tenant": job.tenant,
        "kind": "step",
        "request": {"kind": "step", "stage": stage, "number": number, "model": job.request.get("model"), **step},
        "state": states.QUEUED,
        "version": 1,
        "attempt": 0,
        "tries": 0,
        "queue": job.queue + STEP_SUFFIX,
        "priority": job.priority,
        "run_after": tx.now,
        "created_at": job.created_at,
        "deadline": job.deadline,
        "stage": "",
        "fraction": 0.0,
        "message": "",
        "traceparent": job.traceparent,
        "parent_id": job.id,
        "parent_attempt": job.attempt,
    }


def _at_barrier(step: Job) -> tuple[ColumnElement[bool], ...]:
    """The parent, while it is parked by the very attempt that made this step."""
    return (
        jobs.c.id == step.parent_id,
        jobs.c.attempt == step.parent_attempt,
        jobs.c.state == states.RUNNING,
        jobs.c.owner.is_(None),
    )


def _count_off(tx: Transaction, step: Job) -> None:
    if step.state == states.FAILED:
        end(tx, _at_barrier(step), states.FAILED, error=step.error)
        return
    if step.state == states.CANCELLED:  # only together with its parent
        return
    last = jobs.c.steps_left <= 1
    parent = change(
        tx,
        _at_barrier(step),
        {
            "steps_left": jobs.c.steps_left - 1,
            "state": case((last, states.QUEUED), else_=jobs.c.state),
            "run_after": case((last, tx.now), else_=jobs.c.run_after),
        },
    )
    if parent is not None and parent.state == states.QUEUED:
        record(tx, parent.id, "barrier", {"steps": parent.steps_total})
        ring(tx, parent)


def _drop_steps(tx: Transaction, job: Job) -> None:
    """The parent has ended before its steps: those that wait end with it, those that run are told."""
    mine = (jobs.c.parent_id == job.id, jobs.c.parent_attempt == job.attempt)
    waiting = (*mine, jobs.c.state == states.QUEUED)
    for found in _unlocked(tx, waiting):
        end(tx, (jobs.c.id == found, *waiting), states.CANCELLED)
    running = (*mine, jobs.c.state == states.RUNNING, jobs.c.cancel_requested_at.is_(None))
    marked = update(jobs).where(jobs.c.id.in_(_unlocked(tx, running)), *running)
    tx.connection.execute(marked.values(cancel_requested_at=tx.now, version=jobs.c.version + 1))


def _unlocked(tx: Transaction, where: tuple[ColumnElement[bool], ...]) -> Sequence[str]:
    """Ids of rows that nobody changes right now: waiting for a step that is just ending, and so waits for our parent's
    row, would be a deadlock."""
    return tx.connection.execute(select(jobs.c.id).where(*where).with_for_update(skip_locked=True)).scalars().all()
