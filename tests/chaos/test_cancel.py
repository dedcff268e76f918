"""Cancelling: soon, for good, and never both cancelled and finished."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path

import pytest

from bitwright.jobs.store import open_store
from tests.chaos.fleet import faults_of_history, fleet, quick_settings, wait_for
from tests.chaos.sizes import SEED, reproduce, size, within
from tests.worker.conftest import FAKE_STEPS, alive, request_for

RACES = size(1000, 100)
RUNNING = size(40, 4)


@pytest.mark.timeout(600)
def test_a_cancel_against_the_finish_ends_in_exactly_one_state(database_url, tmp_path):
    store = open_store(quick_settings(tmp_path, database_url).resolved_database_url)
    chance, ends = random.Random(SEED), {"succeeded": 0, "cancelled": 0}
    for _ in range(RACES):
        store.create(request_for("x"))
        job = store.claim("racer")
        ready = threading.Barrier(2)
        pause = chance.uniform(-0.002, 0.002)

        def finish(job=job, ready=ready, pause=pause):
            ready.wait()
            time.sleep(max(0.0, pause))
            if store.get(job.id).cancelling:
                assert store.confirm_cancel(job.id, job.attempt)
            else:
                store.succeed(job.id, job.attempt, {"x": 1})

        thread = threading.Thread(target=finish)
        thread.start()
        ready.wait()
        time.sleep(max(0.0, -pause))
        asked = store.cancel(job.id)
        thread.join()
        ended = store.get(job.id)
        ends[ended.state] += 1
        assert faults_of_history(store, job.id) == [], reproduce("tests/chaos/test_cancel.py -k race")
        assert (ended.result is None) == (ended.state == "cancelled")
        assert asked.state in ("running", ended.state)
    print(ends)
    store.close()


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


@pytest.mark.timeout(900)
def test_cancels_are_quick_and_kill_the_child(database_url, tmp_path):
    """Queued: at once. Running: within the second in which a worker looks, and then the child is gone."""
    settings = quick_settings(tmp_path, database_url, cancel_seconds=1.0)
    with fleet(settings, 1, steps=FAKE_STEPS, slots=2) as found:
        waits = []
        for _ in range(RUNNING):
            (tmp_path / "hanging").unlink(missing_ok=True)
            job_id, queued = (found.store.create(request_for("hang")).job.id for _ in range(2))
            wait_for(lambda: _text(tmp_path / "hanging"), 120, "the job did not start")
            late = found.store.create(request_for("hang"), run_after=time.time() + 600).job.id
            begin = time.monotonic()
            assert found.store.cancel(late).state == "cancelled"
            assert time.monotonic() - begin <= within(1.0)
            for one in (job_id, queued):
                found.store.cancel(one)
            wait_for(lambda: found.left == 0, 120, "the jobs were not cancelled")
            waits.append(time.monotonic() - begin)
            assert not alive(int((tmp_path / "hanging").read_text()))
        print(f"running jobs cancelled after {min(waits):.2f} to {max(waits):.2f} s")
        assert sorted(waits)[int(0.99 * (len(waits) - 1))] <= within(5.0)
