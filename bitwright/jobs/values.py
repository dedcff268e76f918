"""What the store gives back: frozen values, read once and never tied to a connection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.engine import RowMapping

from bitwright.jobs.states import RUNNING, TERMINAL


@dataclass(frozen=True)
class Job:
    """One accepted request. Times in seconds since 1970; `version` grows at each change (the ETag)."""

    id: str
    tenant: str
    kind: str
    request: dict[str, Any]
    state: str
    version: int
    attempt: int
    tries: int
    queue: str
    priority: int
    owner: str | None
    lease_until: float | None
    run_after: float
    created_at: float
    started_at: float | None
    finished_at: float | None
    deadline: float | None
    cancel_requested_at: float | None
    stage: str
    fraction: float
    message: str
    result: Any
    error: dict[str, Any] | None
    work_digest: str | None
    traceparent: str | None
    parent_id: str | None
    parent_attempt: int | None
    steps_total: int | None
    steps_left: int | None
    batch_id: str | None
    callback: str | None
    measures: dict[str, Any] | None

    @property
    def parked(self) -> bool:
        """Waiting for its steps at the barrier: nobody holds it."""
        return self.state == RUNNING and self.owner is None

    @property
    def done(self) -> bool:
        return self.state in TERMINAL

    @property
    def cancelling(self) -> bool:
        return self.state == RUNNING and self.cancel_requested_at is not None

    def to_json(self) -> dict[str, Any]:
        """The public document (research/06 A5): exactly one of `result` and `error` once done, neither before."""
        document: dict[str, Any] = {
            "id": self.id,
            "kind": self.kind,
            "state": self.state,
            "done": self.done,
            "cancelling": self.cancelling,
            "version": self.version,
            "attempt": self.attempt,
            "queue": self.queue,
            "priority": self.priority,
            "progress": {"fraction": self.fraction, "stage": self.stage, "message": self.message},
            "created_at": timestamp(self.created_at),
            "started_at": timestamp(self.started_at),
            "finished_at": timestamp(self.finished_at),
            "deadline": timestamp(self.deadline),
            "batch": self.batch_id,
            "callback": self.callback,
            "request": self.request,
        }
        if self.parked and self.steps_total is not None:
            document["steps"] = {"total": self.steps_total, "left": self.steps_left}
        if self.error is not None:
            document["error"] = self.error
        elif self.done:
            document["result"] = self.result
        return document


_JOB_FIELDS = tuple(field.name for field in fields(Job))


def job_of(row: RowMapping) -> Job:
    return Job(**{name: row[name] for name in _JOB_FIELDS})


@dataclass(frozen=True)
class Event:
    """One thing that happened to a job; `id` grows with time within the job."""

    id: int
    job_id: str
    at: float
    type: str
    data: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "job_id": self.job_id,
            "at": timestamp(self.at),
            "type": self.type,
            "data": dict(self.data),
        }


@dataclass(frozen=True)
class Delivery:
    """One webhook on its way; its id is the receiver's idempotency key. payload: the thin event that is sent."""

    id: str
    tenant: str
    job_id: str
    url: str
    type: str
    payload: dict[str, Any]
    state: str
    tries: int
    created_at: float
    due: float
    delivered_at: float | None
    status: int | None
    error: str | None

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "job_id": self.job_id,
            "url": self.url,
            "type": self.type,
            "state": self.state,
            "tries": self.tries,
            "created_at": timestamp(self.created_at),
            "next_try_at": timestamp(self.due) if self.state == "pending" else None,
            "delivered_at": timestamp(self.delivered_at),
            "status": self.status,
            "error": self.error,
        }


@dataclass(frozen=True)
class Created:
    """replayed: the idempotency key was known, `job` is its job as it is now; cached: answered by earlier work."""

    job: Job
    replayed: bool = False
    cached: bool = False


@dataclass(frozen=True)
class Finished:
    """What the metrics need of a job that has ended; wait and run in seconds."""

    kind: str
    state: str
    wait: float
    run: float
    measures: Mapping[str, Any]


@dataclass(frozen=True)
class Statistics:
    """Counts by state; by queue, work waiting and the age in seconds of the oldest that could run now; unsent rings."""

    states: Mapping[str, int]
    queued: Mapping[str, int]
    oldest: Mapping[str, float]
    expired_leases: int
    unsent: int

    @property
    def oldest_queued_seconds(self) -> float:
        return max(self.oldest.values(), default=0.0)


def timestamp(seconds: float | None) -> str | None:
    """RFC 3339 in UTC with milliseconds."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
