"""Many at once: threads and processes on one table, and what must hold whoever wins."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bitwright.core.errors import IdempotencyMismatch
from bitwright.jobs.store import JobStore, open_store

ROOT = Path(__file__).resolve().parents[2]
REQUEST = {"kind": "inspect", "model": "file:models/a"}
CLAIM_ALL = """
import sys
from bitwright.jobs.store import open_store
store = open_store(sys.argv[1])
while job := store.claim(sys.argv[2]):
    print(job.id, job.attempt)
    assert store.succeed(job.id, job.attempt, {"by": sys.argv[2]})
"""


def at_once(count: int, action: Callable[[int], object]) -> list[object]:
    """Run `action(0..count-1)` in threads that all start together; an exception is a result."""
    barrier = threading.Barrier(count)

    def start(number: int) -> object:
        barrier.wait(30)
        try:
            return action(number)
        except Exception as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(start, range(count)))


def submit(store: JobStore, count: int) -> set[str]:
    return {store.create(REQUEST).job.id for _ in range(count)}


def test_four_threads_claim_every_job_exactly_once(live_store):
    made = submit(live_store, 60)

    def work(number: int) -> list[str]:
        taken = []
        while job := live_store.claim(f"worker-{number}"):
            taken.append(job.id)
        return taken

    taken = [job_id for part in at_once(4, work) for job_id in part]
    assert Counter(taken) == Counter(made)


def test_four_processes_claim_every_job_exactly_once(live_store, database_url):
    made = submit(live_store, 140)
    command = [sys.executable, "-c", CLAIM_ALL, database_url]
    processes = [subprocess.Popen([*command, f"w{n}"], stdout=subprocess.PIPE, text=True, cwd=ROOT) for n in range(4)]
    outputs = [process.communicate(timeout=250)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    lines = [line.split() for output in outputs for line in output.splitlines()]
    assert Counter(job_id for job_id, _ in lines) == Counter(made)
    assert {attempt for _, attempt in lines} == {"1"}
    assert live_store.statistics().states["succeeded"] == 140


def test_fifty_parallel_creates_with_one_key_make_one_job(live_store):
    results = at_once(50, lambda _: live_store.create(REQUEST, key="same"))
    assert len({result.job.id for result in results}) == 1
    assert Counter(result.replayed for result in results) == {True: 49, False: 1}
    assert len(live_store.page(limit=100)) == 1
    changed = at_once(10, lambda n: live_store.create({**REQUEST, "seed": n + 1}, key="same"))
    assert {type(result) for result in changed} == {IdempotencyMismatch}


@pytest.mark.parametrize("pair", [("succeed", "cancel"), ("succeed", "fail"), ("cancel", "claim"), ("succeed", "reap")])
def test_races_end_in_exactly_one_state(live_store, pair):
    actions = {
        "succeed": lambda job: live_store.succeed(job.id, job.attempt, {}),
        "fail": lambda job: live_store.fail(job.id, job.attempt, {"type": "x"}),
        "claim": lambda job: live_store.claim("other"),
        "reap": lambda job: (live_store.expire_owner("worker"), live_store.reap(1)),
        "cancel": lambda job: live_store.cancel(job.id) and live_store.confirm_cancel(job.id, job.attempt),
    }
    for _ in range(12):
        job = live_store.create(REQUEST).job
        if "claim" not in pair:
            job = live_store.claim("worker")
        outcomes = at_once(2, lambda number, job=job: actions[pair[number]](job))
        assert not [outcome for outcome in outcomes if isinstance(outcome, Exception)]
        if live_store.get(job.id).cancelling:
            live_store.confirm_cancel(job.id, live_store.get(job.id).attempt)
        ends = [
            event.type
            for event in live_store.events_after(job.id)
            if event.type in ("succeeded", "failed", "cancelled")
        ]
        assert ends == [live_store.get(job.id).state]


def test_a_waiter_sees_a_change_made_by_another_process(live_store, database_url):
    job = live_store.create(REQUEST).job
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(live_store.wait_for_change, job.id, job.version, 60)
        subprocess.run(
            [sys.executable, "-c", CLAIM_ALL, database_url, "w"], check=True, cwd=ROOT, stdout=subprocess.DEVNULL
        )
        assert waiting.result(60).version > job.version


def test_many_processes_may_migrate_at_once(tmp_path):
    url = f"sqlite:///{tmp_path / 'new' / 'jobs.db'}"
    stores = at_once(6, lambda _: open_store(url))
    assert not [store for store in stores if isinstance(store, Exception)]
    for store in stores:
        assert store.page() == []
        store.close()
