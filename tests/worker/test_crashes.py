"""kill -9 and SIGSTOP, for real, of every process that has a part in a job: the job still ends, once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from bitwright.jobs.states import TERMINAL
from tests.worker.conftest import FAKE_STEPS, alive, request_for, wait_until
from worker.embedded import EmbeddedWorker, embedded_worker

ROOT = Path(__file__).resolve().parents[2]
API = """
import json, sys, time
from bitwright.settings import Settings
from worker.embedded import EmbeddedWorker
worker = EmbeddedWorker(Settings(**json.loads(sys.argv[1])), slots=1, steps=sys.argv[2])
worker.start()
while True:
    time.sleep(60)
"""


@pytest.fixture
def embedded(settings) -> Iterator[EmbeddedWorker]:
    with embedded_worker(settings, slots=2, steps=FAKE_STEPS) as worker:
        yield worker


def children_of(pid: int) -> list[int]:
    return [child.pid for child in psutil.Process(pid).children()]


def ends(store, job_id: str) -> list[str]:
    return [event.type for event in store.events_after(job_id) if event.type in TERMINAL]


def submit(store, work: str) -> str:
    return store.create(request_for(work)).job.id


def test_a_killed_child_costs_one_try(embedded, store, settings):
    job_id = submit(store, "until/go")
    wait_until(lambda: store.get(job_id).stage == "working")
    for pid in children_of(embedded.pid):
        os.kill(pid, signal.SIGKILL)
    (settings.state_dir / "go").touch()
    wait_until(lambda: store.get(job_id).done)
    job = store.get(job_id)
    assert (job.state, job.tries, ends(store, job_id)) == ("succeeded", 1, ["succeeded"])


def test_a_killed_pool_is_replaced_and_its_jobs_start_again_before_their_leases_end(embedded, store, settings):
    job_id = submit(store, "hang")
    wait_until((settings.state_dir / "hanging").exists)
    child, pool = int((settings.state_dir / "hanging").read_text()), embedded.pid
    os.kill(pool, signal.SIGKILL)
    wait_until(lambda: store.get(job_id).attempt == 2)
    assert not alive(child)
    assert embedded.pid != pool
    store.cancel(job_id)
    wait_until(lambda: store.get(job_id).done)
    assert ends(store, job_id) == ["cancelled"]


def test_a_job_that_kills_its_pool_ends_after_three_tries(embedded, store, settings):
    job_id = submit(store, "hang")
    for attempt in (1, 2, 3):
        wait_until(lambda attempt=attempt: store.get(job_id).attempt == attempt and embedded.alive)
        os.kill(embedded.pid, signal.SIGKILL)
    wait_until(lambda: store.get(job_id).done)
    job = store.get(job_id)
    assert (job.state, job.error["type"].rpartition("/")[2]) == ("failed", "worker-lost")
    neighbour = submit(store, "answer")
    wait_until(lambda: store.get(neighbour).state == "succeeded")


def test_a_killed_api_leaves_no_process_behind_and_its_successor_ends_the_job(store, settings):
    values = json.dumps(settings.model_dump(mode="json"))
    api = subprocess.Popen([sys.executable, "-c", API, values, FAKE_STEPS], cwd=ROOT)
    job_id = submit(store, "fail-until/1")
    slow = submit(store, "hang")
    wait_until((settings.state_dir / "hanging").exists)
    family = [process.pid for process in psutil.Process(api.pid).children(recursive=True)]
    assert len(family) == 2
    api.kill()
    api.wait()
    wait_until(lambda: not any(alive(pid) for pid in family))
    assert store.get(slow).state == "queued"
    with embedded_worker(settings, slots=1, steps=FAKE_STEPS):
        wait_until(lambda: store.get(slow).state == "running")
        store.cancel(slow)
        wait_until(lambda: store.get(slow).done and store.get(job_id).done)
    assert (ends(store, slow), ends(store, job_id)) == (["cancelled"], ["succeeded"])


def test_a_stopped_pool_that_wakes_after_its_lease_changes_nothing(store, settings):
    """SIGSTOP beyond the lease: another worker takes the job; what the first one says after SIGCONT is rejected."""
    with embedded_worker(settings, slots=1, steps=FAKE_STEPS) as first:
        job_id = submit(store, "until/go")
        wait_until(lambda: store.get(job_id).stage == "working")
        frozen = first.pid
        os.kill(frozen, signal.SIGSTOP)
        (stale,) = children_of(frozen)
        with embedded_worker(settings, slots=1, steps=FAKE_STEPS):
            wait_until(lambda: store.get(job_id).attempt == 2)
            (settings.state_dir / "go").touch()
            wait_until(lambda: not alive(stale))  # its answer waits in the pipe of the stopped pool
            os.kill(frozen, signal.SIGCONT)
            wait_until(lambda: store.get(job_id).done)
    job = store.get(job_id)
    assert (job.state, job.attempt, ends(store, job_id)) == ("succeeded", 2, ["succeeded"])
    after = [event for event in store.events_after(job_id) if event.type == "started"][-1].id
    assert all(event.type in ("progress", "succeeded") for event in store.events_after(job_id, after))


def test_sigterm_hands_running_jobs_over(embedded, store, settings):
    job_id = submit(store, "hang")
    wait_until((settings.state_dir / "hanging").exists)
    embedded.stop()
    job = store.get(job_id)
    assert (job.state, job.tries) == ("queued", 0)
    assert not alive(int((settings.state_dir / "hanging").read_text()))
    assert not embedded.alive


def test_no_slots_means_no_worker(settings):
    with embedded_worker(settings, slots=0) as worker:
        assert worker is None


def test_a_pool_with_a_wrong_setting_says_which(settings):
    done = subprocess.run(
        [sys.executable, "-m", "worker.pool"],
        env={**os.environ, "BITWRIGHT_MAX_ATTEMPTS": "none"}, cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert "BITWRIGHT_MAX_ATTEMPTS" in done.stderr
    assert "Traceback" not in done.stderr
