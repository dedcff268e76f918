"""The life of a job.

    queued ──► running ──► succeeded | failed | cancelled
      ▲           │
      └───────────┘  lease lost, worker stopping, temporary trouble

`cancelling` is `running` with `cancel_requested_at` set. A queued job may be cancelled, or fail by its
deadline, at once. Terminal states never change: every write names the state it expects, and a trigger in the database
refuses the rest.
"""

from __future__ import annotations

QUEUED = "queued"
RUNNING = "running"
SUCCEEDED = "succeeded"
FAILED = "failed"
CANCELLED = "cancelled"

STATES = (QUEUED, RUNNING, SUCCEEDED, FAILED, CANCELLED)
TERMINAL = (SUCCEEDED, FAILED, CANCELLED)

#: state -> the states that may follow it.
NEXT: dict[str, tuple[str, ...]] = {
    QUEUED: (RUNNING, CANCELLED, FAILED),
    RUNNING: (QUEUED, SUCCEEDED, FAILED, CANCELLED),
    SUCCEEDED: (),
    FAILED: (),
    CANCELLED: (),
}


def may_follow(before: str, after: str) -> bool:
    """Whether a job in state `before` may come into state `after` (or stay where it is, unless it has ended)."""
    return after in NEXT[before] or (before == after and before not in TERMINAL)


#: Queues of jobs: whose workers take them.
QUEUES = ("cpu", "gpu", "solve")
