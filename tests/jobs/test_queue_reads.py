"""What a worker asks the table costs about the same however long the queue is.

Regression: SQLite read every queued row at each claim and each sweep. That filled the page cache of each connection of
a worker (57.9 to 61.9 MiB over 10,000 jobs) and made claims slower with every waiting job.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest
from sqlalchemy import event

from bitwright.jobs.create import NewJob
from bitwright.jobs.store import JobStore, open_store

REQUEST = {"kind": "inspect", "model": "m"}
#: Instructions of SQLite's machine between two calls of the progress handler.
GRAIN = 10


def work_of(store: JobStore, action: Callable[[], object]) -> int:
    """Instructions of SQLite's machine that an action takes, to GRAIN each statement."""
    found = 0

    def count() -> int:
        nonlocal found
        found += GRAIN
        return 0

    def listen(connection, _record, _proxy) -> None:
        connection.set_progress_handler(count, GRAIN)

    event.listen(store.database.engine, "checkout", listen)
    action()
    event.remove(store.database.engine, "checkout", listen)
    return found


def one_job(store: JobStore) -> None:
    job = store.claim("w", None, 30, 20)
    store.renew(job.id, job.attempt)
    store.progress(job.id, job.attempt, "work", 0.5, "half")
    assert store.succeed(job.id, job.attempt, {})


ACTIONS: dict[str, Callable[[JobStore], object]] = {
    "a job from claim to end": one_job,
    "a claim of named queues": lambda store: store.claim("w", ["cpu"], 30, 20),
    "a sweep": lambda store: store.reap(3),
    "webhooks": lambda store: store.take_deliveries(),
}


@pytest.mark.parametrize("name", ACTIONS)
def test_a_long_queue_costs_no_more_than_a_short_one(tmp_path, migrated_file, name):
    work = {}
    for waiting in (50, 2000):
        path = tmp_path / f"{waiting}.db"
        shutil.copy(migrated_file, path)
        store = open_store(f"sqlite:///{path}")
        store.create_many([NewJob(REQUEST, tenant=f"t{number % 3}") for number in range(waiting)])
        one_job(store)
        work[waiting] = work_of(store, lambda store=store: ACTIONS[name](store))  # type: ignore[misc]
        store.close()
    assert 0 < work[2000] < 1.5 * work[50] + 100
