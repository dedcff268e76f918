"""The face of `bitwright.jobs`: each method is one transaction. Shared between threads, never between processes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from bitwright.core.errors import BitwrightError
from bitwright.jobs import batches, deliveries, outbox, query, reap
from bitwright.jobs import cancel as cancelling
from bitwright.jobs import claim as claiming
from bitwright.jobs.batches import Batch
from bitwright.jobs.create import Answer, NewJob, create, create_many
from bitwright.jobs.engine import Clock, Database
from bitwright.jobs.failpoints import PUBLISHED_BEFORE_MARKED, TAKEN_BEFORE_PUBLISHED, failpoint
from bitwright.jobs.migrate import upgrade
from bitwright.jobs.outbox import Message
from bitwright.jobs.rooms import Rooms
from bitwright.jobs.values import Created, Delivery, Event, Finished, Job, Statistics


class JobStore:
    """Jobs in a database. `open_store` makes one."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._rooms = Rooms()

    # -- by those who ask for work -------------------------------------------------------------------------------

    def create(self, request: Mapping[str, Any], **options: Any) -> Created:
        """Accept a job; options are the other fields of `NewJob`. When this returns, the job is on disk."""
        with self.database.write() as tx:
            return create(tx, NewJob(request, **options))

    def create_many(
        self, news: Sequence[NewJob], queued_limit: int | None = None, writing_limit: int | None = None
    ) -> list[Answer]:
        """Accept jobs together: one answer each, one wait for the disk for all."""
        with self.database.write() as tx:
            return create_many(tx, news, queued_limit, self._rooms, writing_limit)

    def create_batch(
        self, batch_id: str, tenant: str, request: Mapping[str, Any], news: Sequence[NewJob], queued_limit: int,
        writing_limit: int | None = None,
    ) -> Batch:  # fmt: skip
        with self.database.write() as tx:
            return batches.create_batch(tx, batch_id, tenant, request, news, queued_limit, self._rooms, writing_limit)

    def get_batch(self, batch_id: str, tenant: str) -> Batch:
        with self.database.read() as tx:
            return batches.get_batch(tx, batch_id, tenant)

    def cancel_batch(self, batch_id: str, tenant: str) -> Batch:
        with self.database.write() as tx:
            return batches.cancel_batch(tx, batch_id, tenant)

    def get(self, job_id: str, tenant: str | None = None) -> Job:
        with self.database.read() as tx:
            return query.get(tx, job_id, tenant)

    def page(self, **filters: Any) -> list[Job]:
        """Newest first; filters: tenant, states, kinds, after=(created_at, id), limit."""
        with self.database.read() as tx:
            return query.page(tx, **filters)

    def search(self, words: Sequence[str], **filters: Any) -> tuple[list[Job], tuple[float, str] | None]:
        """`query.search`: as `page`, of the jobs that hold every word; and where to go on."""
        with self.database.read() as tx:
            return query.search(tx, words, **filters)

    def cancel(self, job_id: str, tenant: str | None = None) -> Job:
        with self.database.write() as tx:
            return cancelling.cancel(tx, job_id, tenant)

    def events_after(self, job_id: str, last_id: int = 0, limit: int = 1000) -> list[Event]:
        with self.database.read() as tx:
            return query.events_after(tx, job_id, last_id, limit)

    def version_of(self, job_id: str) -> int:
        with self.database.read() as tx:
            return query.version_of(tx, job_id)

    def wait_for_change(self, job_id: str, version: int, timeout: float) -> Job:
        """The job as soon as its version differs, or as it is after `timeout` seconds. Waits without a connection."""
        for delay in poll_delays(timeout):
            if self.version_of(job_id) != version:
                break
            time.sleep(delay)
        return self.get(job_id)

    async def wait_for_change_async(self, job_id: str, version: int, timeout: float) -> Job:
        for delay in poll_delays(timeout):
            if await asyncio.to_thread(self.version_of, job_id) != version:
                break
            await asyncio.sleep(delay)
        return await asyncio.to_thread(self.get, job_id)

    def running_attempts(self) -> frozenset[tuple[str, int]]:
        """(job id, attempt) of everything that runs now."""
        with self.database.read() as tx:
            return query.running_attempts(tx)

    def statistics(self) -> Statistics:
        with self.database.read() as tx:
            return query.statistics(tx)

    # -- by those who do the work: False or None means that the job is no longer theirs -------------------------------

    def claim(
        self,
        owner: str,
        queues: Sequence[str] | None = None,
        lease_seconds: float = 30.0,
        active: int | None = None,
    ) -> Job | None:
        with self.database.read() as tx:  # idle workers look often: they must not queue for the write lock
            if not claiming.any_due(tx, queues):
                return None
        with self.database.write() as tx:
            return claiming.claim(tx, owner, queues, lease_seconds, active)

    def renew(self, job_id: str, attempt: int, lease_seconds: float = 30.0) -> Job | None:
        with self.database.write() as tx:
            return claiming.renew(tx, job_id, attempt, lease_seconds)

    def progress(self, job_id: str, attempt: int, stage: str, fraction: float, message: str) -> bool:
        with self.database.write() as tx:
            return claiming.progress(tx, job_id, attempt, stage, fraction, message)

    def succeed(self, job_id: str, attempt: int, result: Any, measures: Mapping[str, Any] | None = None) -> bool:
        with self.database.write() as tx:
            return claiming.succeed(tx, job_id, attempt, result, measures)

    def fan_out(self, job_id: str, attempt: int, stage: str, steps: Sequence[Mapping[str, Any]]) -> bool:
        """Park the job at a barrier until these steps have ended."""
        with self.database.write() as tx:
            return claiming.fan_out(tx, job_id, attempt, stage, steps)

    def fail(self, job_id: str, attempt: int, error: BitwrightError | Mapping[str, Any]) -> bool:
        problem = error.to_problem() if isinstance(error, BitwrightError) else error
        with self.database.write() as tx:
            return claiming.fail(tx, job_id, attempt, problem)

    def retry(self, job_id: str, attempt: int, error: BitwrightError | Mapping[str, Any], max_attempts: int) -> bool:
        problem = error.to_problem() if isinstance(error, BitwrightError) else error
        with self.database.write() as tx:
            return claiming.retry(tx, job_id, attempt, problem, max_attempts)

    def confirm_cancel(self, job_id: str, attempt: int) -> bool:
        with self.database.write() as tx:
            return claiming.confirm_cancel(tx, job_id, attempt)

    def release(self, job_id: str, attempt: int) -> bool:
        with self.database.write() as tx:
            return claiming.release(tx, job_id, attempt)

    # -- by those who look after the table ----------------------------------------------------------------------------

    def reap(self, max_attempts: int) -> reap.Swept:
        with self.database.write() as tx:
            return reap.reap(tx, max_attempts)

    def expire_owner(self, owner: str) -> int:
        with self.database.write() as tx:
            return reap.expire_owner(tx, owner)

    def collect_garbage(self, older_than_seconds: float) -> int:
        with self.database.write() as tx:
            return reap.collect_garbage(tx, tx.now - older_than_seconds)

    def forget_messages(self, older_than_seconds: float) -> None:
        with self.database.write() as tx:
            reap.forget_messages(tx, tx.now - older_than_seconds)

    def publish_due(self, publish: Callable[[Message], None]) -> int:
        """Hand due doorbell messages to `publish` and mark them sent; what it raises leaves them all unsent."""
        with self.database.write() as tx:
            messages = outbox.due_messages(tx)
            if messages:
                failpoint(TAKEN_BEFORE_PUBLISHED)
            for message in messages:
                publish(message)
            if messages:
                failpoint(PUBLISHED_BEFORE_MARKED)
            outbox.mark_sent(tx, [message.id for message in messages])
        return len(messages)

    def waiting_longer_than(self, seconds: float) -> dict[str, int]:
        with self.database.read() as tx:
            return outbox.waiting_longer_than(tx, seconds)

    # -- webhooks ---------------------------------------------------------------------------------------------------

    def take_deliveries(self) -> list[Delivery]:
        with self.database.write() as tx:
            return deliveries.take_due(tx)

    def settle_delivery(self, found: Delivery, **outcome: Any) -> Delivery:
        """outcome: status, error, retry_after, jitter."""
        with self.database.write() as tx:
            return deliveries.settle(tx, found, **outcome)

    def resend_delivery(self, delivery_id: str, tenant: str) -> Delivery:
        with self.database.write() as tx:
            return deliveries.resend(tx, delivery_id, tenant)

    def get_delivery(self, delivery_id: str, tenant: str) -> Delivery:
        with self.database.read() as tx:
            return deliveries.get(tx, delivery_id, tenant)

    def deliveries(self, tenant: str, **filters: Any) -> list[Delivery]:
        """Newest first; filters: states, job_id, after=(created_at, id), limit."""
        with self.database.read() as tx:
            return deliveries.page(tx, tenant, **filters)

    def made(self, tenant: str, member: str, value: str, *, begins: bool = False) -> bool:
        with self.database.read() as tx:
            return query.made(tx, tenant, member, value, begins=begins)

    def finished_since(self, seconds: float, limit: int = 5000) -> list[Finished]:
        """The jobs that ended in the last `seconds`, newest first: what the metrics are made of."""
        with self.database.read() as tx:
            return query.finished_since(tx, tx.now - seconds, limit)

    def close(self) -> None:
        self.database.close()


def open_store(url: str, *, clock: Clock | None = None, migrate: bool = True, **options: Any) -> JobStore:
    """Connect, bring the schema to its newest form, and give the store.

    `clock` (seconds since 1970) replaces the database's time in tests; options are those of `Database`.
    """
    database = Database(url, clock=clock, **options)
    if migrate:
        upgrade(database)
    return JobStore(database)


def poll_delays(timeout: float) -> Iterator[float]:
    """Pauses between looks: short at first, half a second at most, ending when `timeout` seconds are over."""
    end, delay = time.monotonic() + timeout, 0.05
    while (left := end - time.monotonic()) > 0:
        yield min(delay, left)
        delay = min(0.5, delay * 1.5)
