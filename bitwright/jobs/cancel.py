"""Cancelling: a queued or parked job ends at once; a running one is marked, its worker kills the child and confirms."""

from __future__ import annotations

from bitwright.jobs import states
from bitwright.jobs.change import change, record
from bitwright.jobs.ending import end
from bitwright.jobs.engine import Transaction
from bitwright.jobs.query import get
from bitwright.jobs.tables import jobs
from bitwright.jobs.values import Job


def cancel(tx: Transaction, job_id: str, tenant: str | None) -> Job:
    """The job after the request; a job that has ended, or is being cancelled already, is given as it is.

    Raises NotFound.
    """
    get(tx, job_id, tenant)
    mine = jobs.c.id == job_id
    parked = (jobs.c.state == states.RUNNING) & jobs.c.owner.is_(None)
    ended = end(tx, (mine, (jobs.c.state == states.QUEUED) | parked), states.CANCELLED)
    if ended is not None:
        return ended
    where = (mine, jobs.c.state == states.RUNNING, jobs.c.cancel_requested_at.is_(None))
    marked = change(tx, where, {"cancel_requested_at": tx.now})
    if marked is not None:
        record(tx, job_id, "cancel-requested")
        return marked
    return get(tx, job_id, tenant)
