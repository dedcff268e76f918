"""Taking back what nobody holds any more, at intervals, in every worker process: any one of them is enough."""

from __future__ import annotations

import logging
import threading
import time

from bitwright.core.errors import BitwrightError
from bitwright.jobs.store import JobStore
from bitwright.settings import Settings
from worker.leftovers import remove_leftovers

DAY = 24 * 3600.0
#: How often old rows are removed, in seconds.
TIDY_SECONDS = 3600.0
_log = logging.getLogger("bitwright.worker")


def sweep_until(stopping: threading.Event, store: JobStore, settings: Settings) -> None:
    """Sweep each `reaper_seconds` until told to stop; a database that fails is tried again at the next turn."""
    tidied = -TIDY_SECONDS
    while not stopping.is_set():
        if settings.alive_file is not None:  # the loop turns; whether the database answers is another matter
            settings.alive_file.touch()
        try:
            swept = store.reap(settings.max_attempts)
            if time.monotonic() - tidied >= TIDY_SECONDS:
                _tidy(store, settings)
                tidied = time.monotonic()
        except BitwrightError as error:
            _log.warning("no sweep now: %s", error.detail)
        else:
            if swept.lost or swept.overdue:
                _log.warning("took back %d lost jobs, failed %d overdue ones", swept.lost, swept.overdue)
        stopping.wait(settings.reaper_seconds)


def _tidy(store: JobStore, settings: Settings) -> None:
    """Remove rows that have served their time, and files that killed processes left."""
    remove_leftovers(store, settings)
    removed = store.collect_garbage(settings.retention_days * DAY)
    store.forget_messages(DAY)
    if removed:
        _log.info("removed %d jobs that ended more than %d days ago", removed, settings.retention_days)
