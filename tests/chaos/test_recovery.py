"""How long it takes until a dead worker's job runs again, and a stopping one's."""

from __future__ import annotations

import signal
import time

import pytest

from tests.chaos.fleet import fleet, quick_settings, wait_for
from tests.chaos.sizes import FULL, size, within
from tests.worker.conftest import FAKE_STEPS, request_for

#: The long form uses the settings that a server has; the short one takes them fifteen times faster.
SETTINGS = {"lease_seconds": 30.0, "renew_seconds": 10.0, "reaper_seconds": 5.0, "poll_seconds": 0.5} if FULL else {}
GOAL = 35.0
JOBS, ROUNDS = size(6, 3), size(4, 1)


def started_at(store, job_id: str, attempt: int) -> float:
    """When an attempt started, by the database's clock."""
    events = store.events_after(job_id)
    return next(e.at for e in events if e.type == "started" and e.data["attempt"] == attempt)


def restarts(found, how: signal.Signals) -> list[float]:
    """Seconds from the end of a worker to the start of each of its jobs on another one."""
    victim = found.start()
    ids = [found.store.create(request_for("sleep/600")).job.id for _ in range(found.slots)]
    wait_for(lambda: all(found.store.get(i).state == "running" for i in ids), 120, "the jobs did not start")
    attempts = {job_id: found.store.get(job_id).attempt for job_id in ids}
    found.start()
    time.sleep(2)  # it has looked for work and found none
    moment = time.time()
    found.kill(victim, how)
    wait_for(lambda: all(found.store.get(i).attempt > attempts[i] for i in ids), 120, "the jobs did not start again")
    waits = [started_at(found.store, job_id, attempts[job_id] + 1) - moment for job_id in ids]
    for job_id in ids:
        found.store.cancel(job_id)
    wait_for(lambda: found.left == 0, 120, "the jobs were not cancelled")
    found.kill(found.workers[0])
    return waits


@pytest.mark.timeout(900)
def test_a_dead_workers_jobs_run_again_soon(database_url, tmp_path):
    settings = quick_settings(tmp_path, database_url, **SETTINGS)
    with fleet(settings, 0, steps=FAKE_STEPS, slots=JOBS) as found:
        waits = sorted(wait for _ in range(ROUNDS) for wait in restarts(found, signal.SIGKILL))
    print(f"worker death to restart of its jobs: {waits[0]:.1f} to {waits[-1]:.1f} s, {len(waits)} jobs")
    assert waits[-1] <= within(GOAL)


@pytest.mark.timeout(300)
def test_a_stopping_worker_hands_its_jobs_over(database_url, tmp_path):
    settings = quick_settings(tmp_path, database_url, lease_seconds=30.0, renew_seconds=10.0, poll_seconds=0.5)
    with fleet(settings, 0, steps=FAKE_STEPS, slots=JOBS) as found:
        waits = sorted(wait for _ in range(ROUNDS) for wait in restarts(found, signal.SIGTERM))
    print(f"SIGTERM hand-over: {waits[0]:.2f} to {waits[-1]:.2f} s, {len(waits)} jobs")
    assert waits[-1] <= within(2.0)
