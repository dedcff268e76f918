"""A worker's hold on one running job: renew it in time, see a cancel, pass progress on, know when it is lost."""

from __future__ import annotations

import time
from contextlib import suppress

from bitwright.core.errors import OutOfResources, Temporary
from bitwright.jobs.store import JobStore
from bitwright.jobs.values import Job
from bitwright.settings import Settings


class LeaseLost(Exception):
    """The job is another worker's, or nobody's: stop the work and discard it."""


class CancelRequested(Exception):
    """Someone wants the job to end."""


class Lease:
    """Kept by the light parent, never by the working child, whose native code may hold the interpreter for minutes."""

    def __init__(self, store: JobStore, job: Job, settings: Settings) -> None:
        self._store = store
        self._job = job
        self._settings = settings
        self._renewed = self._looked = time.monotonic()
        self._told = -settings.progress_seconds
        self._waiting: tuple[str, float, str] | None = None
        self._stage = ""

    def keep(self) -> None:
        """Do what is due now. Raises LeaseLost or CancelRequested. A database that fails for a while does no harm:
        the lease is lost only when it has run out."""
        now = time.monotonic()
        try:
            if now - self._renewed >= self._settings.renew_seconds:
                self._judge(self._store.renew(self._job.id, self._job.attempt, self._settings.lease_seconds))
                self._renewed = self._looked = time.monotonic()
            elif now - self._looked >= self._settings.cancel_seconds:
                self._judge(self._store.get(self._job.id))
                self._looked = time.monotonic()
            self._pass_on(now)
        except (Temporary, OutOfResources) as error:
            if now - self._renewed >= self._settings.lease_seconds:
                raise LeaseLost from error

    def tell(self, stage: str, fraction: float, message: str) -> None:
        """Progress of the child: the latest is stored, at most each `progress_seconds`; a new stage at once."""
        self._waiting = (stage, fraction, message)

    def flush(self) -> None:
        """Store what is waiting before the job ends; progress is not worth failing an end for."""
        self._told = -self._settings.progress_seconds
        with suppress(Temporary, OutOfResources):  # the end itself is stored with patience, see Runner
            self._pass_on(time.monotonic())

    def _judge(self, job: Job | None) -> None:
        if job is None or job.done or job.attempt != self._job.attempt or job.owner != self._job.owner:
            raise LeaseLost
        if job.cancelling:
            raise CancelRequested

    def _pass_on(self, now: float) -> None:
        if self._waiting is None:
            return
        if now - self._told < self._settings.progress_seconds and self._waiting[0] == self._stage:
            return
        waiting, self._waiting = self._waiting, None
        self._told, self._stage = now, waiting[0]
        if not self._store.progress(self._job.id, self._job.attempt, *waiting):
            raise LeaseLost
