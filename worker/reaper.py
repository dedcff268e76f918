"""Taking back what nobody holds any more, at intervals, in every worker process: any one of them is enough."""

from __future__ import annotations

import logging
import threading

from bitwright.core.errors import BitwrightError
from bitwright.jobs.store import JobStore
from bitwright.settings import Settings

_log = logging.getLogger("bitwright.worker")


def sweep_until(stopping: threading.Event, store: JobStore, settings: Settings) -> None:
    """Sweep each `reaper_seconds` until told to stop; a database that fails is tried again at the next turn."""
    while not stopping.is_set():
        try:
            swept = store.reap(settings.max_attempts)
        except BitwrightError as error:
            _log.warning("no sweep now: %s", error.detail)
        else:
            if swept.lost or swept.overdue:
                _log.warning("took back %d lost jobs, failed %d overdue ones", swept.lost, swept.overdue)
        stopping.wait(settings.reaper_seconds)
