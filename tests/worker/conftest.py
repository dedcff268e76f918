"""A state folder with short times, a store, and a runner whose children do what `fake_steps` says."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bitwright.jobs.store import JobStore, open_store
from bitwright.settings import Settings
from worker.runner import Runner

FAKE_STEPS = "tests.worker.fake_steps:run"


def fast_settings(state_dir: Path, **changes) -> Settings:
    """Settings whose times suit tests: everything that takes half a minute takes about a second."""
    values = {
        "lease_seconds": 2.0, "renew_seconds": 0.5, "reaper_seconds": 0.2, "poll_seconds": 0.05, "cancel_seconds": 0.1,
        "progress_seconds": 0.01, "job_seconds": 60.0, "settle_seconds": 5.0,
    }  # fmt: skip
    return Settings(state_dir=state_dir, **{**values, **changes})


def request_for(work: str) -> dict[str, object]:
    return {"kind": "inspect", "model": f"file:do/{work}"}


def wait_until(condition: Callable[[], object], seconds: float = 120.0) -> None:
    """Until the condition holds; fails the test after a time that only a fault can take."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not come true"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether that process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return fast_settings(tmp_path)


@pytest.fixture
def store(settings: Settings) -> Iterator[JobStore]:
    store = open_store(settings.resolved_database_url)
    yield store
    store.close()


@pytest.fixture
def make_runner(store: JobStore, settings: Settings) -> Callable[..., Runner]:
    def make(**changes) -> Runner:
        chosen = settings.model_copy(update=changes)
        return Runner(store, chosen, f"test-{os.getpid()}", threading.Event(), threading.Event(), None, FAKE_STEPS)

    return make


@pytest.fixture
def finish(store: JobStore) -> Callable:
    """Run one job of that work to its end, tries and all, and give it back."""

    def finish(runner: Runner, work: str, **options):
        job_id = store.create(request_for(work), **options).job.id
        wait_until(lambda: runner.run_next() is None or store.get(job_id).done)
        return store.get(job_id)

    return finish
