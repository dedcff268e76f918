"""`bitwright worker`: with a broker, slots that wait for Celery's doorbell; else slots that look at the table."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Sequence

from bitwright.jobs.logs import start_logging
from bitwright.jobs.spans import Exporter
from bitwright.jobs.store import JobStore
from bitwright.settings import Settings
from worker import pool
from worker.relay import Relay
from worker.runner import STEPS, Runner, scratch_folder
from worker.watchers import open_worker_store, watchers

_log = logging.getLogger("bitwright.worker")


def work(settings: Settings, *, queues: Sequence[str] = ("cpu",), slots: int = 1, steps: str = STEPS) -> int:
    """Serve these queues until SIGTERM or SIGINT; running jobs are then given back. The exit status."""
    start_logging(as_json=settings.json_logs)
    if settings.broker_url is None:
        return pool.run(settings, slots=slots, queues=queues, steps=steps)
    store = open_worker_store(settings)
    try:
        return DoorbellWorker(store, settings, queues=queues, slots=slots, steps=steps).run()
    finally:
        store.close()


class DoorbellWorker:
    """A Celery worker whose one task runs the next job of its queues, with a relay and a reaper beside it."""

    def __init__(self, store: JobStore, settings: Settings, *, queues: Sequence[str], slots: int, steps: str) -> None:
        from worker.celery_app import broker_of, make_app

        self._app = make_app(settings)
        self._broker = broker_of(self._app)
        self._store, self._settings, self._queues, self._slots = store, settings, queues, slots
        self._stopping = threading.Event()
        self.owner = pool.new_owner()
        self._spans = Exporter(settings.otlp_endpoint, "bitwright-worker")
        bell = threading.Event()
        self._runner = Runner(store, settings, self.owner, self._stopping, bell, queues, steps, self._spans)

    def run(self) -> int:
        """Until a signal. Celery handles it: no new messages, then this worker's jobs are given back."""
        from celery import signals

        from worker.celery_app import RING, queue_of

        self._app.task(self._ring, name=RING, ignore_result=True)
        for queue in self._queues:
            self._app.amqp.queues.add(queue_of(queue))
        signals.worker_shutting_down.connect(self._stop, weak=False)
        threads = [
            *watchers(self._stopping, self._store, self._settings),
            threading.Thread(
                target=Relay(self._store, self._broker, self._settings).run_until, args=(self._stopping,), name="relay"
            ),
        ]
        for thread in threads:
            thread.start()
        worker = self._app.Worker(
            pool="threads",
            concurrency=self._slots,
            queues=[queue_of(name).name for name in self._queues],
            loglevel="INFO",
            hostname=f"{self.owner}@bitwright",
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
        )
        try:
            worker.start()
        finally:
            self._stop()
            for thread in threads:
                thread.join()
            self._spans.close()
            shutil.rmtree(scratch_folder(self._settings.state_dir, self.owner), ignore_errors=True)
        return int(worker.exitcode or 0)

    def _ring(self, job_id: str = "") -> None:
        """A ring is a hint: what runs is the due job that the table puts first."""
        del job_id
        if not self._stopping.is_set():
            self._runner.run_next()

    def _stop(self, **_: object) -> None:
        self._stopping.set()
