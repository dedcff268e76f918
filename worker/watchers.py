"""What every worker process does beside its slots: taking back lost jobs, sending webhooks. Any one is enough."""

from __future__ import annotations

import threading

from bitwright.jobs.store import JobStore, open_store
from bitwright.settings import Settings
from worker.reaper import sweep_until
from worker.webhooks import send_until


def open_worker_store(settings: Settings) -> JobStore:
    """The store of a worker process."""
    return open_store(
        settings.resolved_database_url,
        busy_seconds=settings.busy_seconds,
        pool_size=settings.database_connections,
    )


def watchers(stopping: threading.Event, store: JobStore, settings: Settings) -> list[threading.Thread]:
    """Threads, not started, that end soon after `stopping` is set."""
    return [
        threading.Thread(target=target, args=(stopping, store, settings), name=name)
        for name, target in (("reaper", sweep_until), ("webhooks", send_until))
    ]
