"""Worker processes to be killed and stopped, on one database and one state folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from bitwright.jobs.states import TERMINAL
from bitwright.jobs.store import JobStore, open_store
from bitwright.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
STEPS = "tests.chaos.effects:run"


def quick_settings(folder: Path, url: str | None, **changes: object) -> Settings:
    """What takes half a minute takes two seconds."""
    values = {
        "lease_seconds": 2.0, "renew_seconds": 0.4, "reaper_seconds": 0.3, "poll_seconds": 0.1, "cancel_seconds": 0.5,
        "max_attempts": 100, "tenant_active_jobs": 1000,
    }  # fmt: skip
    return Settings(state_dir=folder, database_url=url, **{**values, **changes})


class Fleet:
    """Workers of their own process each, as `worker.pool` runs them; a dead one is not replaced by itself."""

    def __init__(self, settings: Settings, *, steps: str = STEPS, slots: int = 2, root: Path = ROOT) -> None:
        self.settings, self.steps, self.slots, self.root = settings, steps, slots, root
        self.store: JobStore = open_store(settings.resolved_database_url)
        self.workers: list[subprocess.Popen[str]] = []

    def start(self, count: int = 1, *, failpoint: str | None = None) -> subprocess.Popen[str]:
        for _ in range(count):
            process = self._start({"BITWRIGHT_TEST_FAILPOINT": failpoint} if failpoint else {})
            self.workers.append(process)
        return process

    def _start(self, more: dict[str, str]) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "worker.pool", "--supervised", "--steps", self.steps]
        with (self.settings.state_dir / "workers.log").open("ab") as log:
            process = subprocess.Popen(
                [*command, "--slots", str(self.slots)], stdin=subprocess.PIPE, stderr=log, text=True, cwd=self.root,
                start_new_session=True, env={**os.environ, "PYTHONPATH": str(self.root), **more},
            )  # fmt: skip
        assert process.stdin is not None
        process.stdin.write(json.dumps(self.settings.model_dump(mode="json")) + "\n")
        process.stdin.flush()
        return process

    def kill(self, process: subprocess.Popen[str], how: signal.Signals = signal.SIGKILL) -> None:
        process.send_signal(how)
        bury(process)
        self.workers.remove(process)

    def close(self) -> None:
        for process in self.workers:
            process.send_signal(signal.SIGCONT)
            process.terminate()
        for process in self.workers:
            bury(process)
        self.workers.clear()
        self.store.close()

    @property
    def left(self) -> int:
        states = self.store.statistics().states
        return states["queued"] + states["running"]


@contextmanager
def fleet(settings: Settings, workers: int, **options: object) -> Iterator[Fleet]:
    found = Fleet(settings, **options)  # type: ignore[arg-type]
    try:
        if workers:
            found.start(workers)
        yield found
    finally:
        found.close()


def bury(process: subprocess.Popen[str]) -> None:
    process.wait(60)
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        process.stdin.close()


def children(process: subprocess.Popen[str]) -> list[int]:
    try:
        return [child.pid for child in psutil.Process(process.pid).children()]
    except psutil.NoSuchProcess:
        return []


def wait_for(condition: Callable[[], object], seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def faults_of_history(store: JobStore, job_id: str) -> list[str]:
    """What is wrong with the history of an ended job: it must end once, and its attempts must follow each other."""
    job, events = store.get(job_id), store.events_after(job_id, limit=10_000)
    types = [event.type for event in events]
    started = [event.data["attempt"] for event in events if event.type == "started"]
    faults = []
    if not job.done:
        faults.append(f"{job_id} has not ended: {job.state}")
    if sum(kind in TERMINAL for kind in types) != 1 or types[-1] not in TERMINAL:
        faults.append(f"{job_id} ended not exactly once: {types}")
    if started != list(range(1, len(started) + 1)) or (started and started[-1] != job.attempt):
        faults.append(f"{job_id} has attempts {started}, token {job.attempt}")
    if types.count("requeued") + types.count("barrier") != max(0, len(started) - 1):
        faults.append(f"{job_id} came back {types.count('requeued')} times for {len(started)} attempts")
    return faults
