"""The worker of embedded mode: a pool in a process of its own, started again whenever it dies. No broker."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bitwright.core.errors import BitwrightError
from bitwright.jobs.store import JobStore
from bitwright.settings import Settings
from worker.pool import new_owner
from worker.runner import STEPS, scratch_folder
from worker.watchers import open_worker_store

#: Pauses before a dead pool is started again, in seconds: doubling from the first to the longest.
FIRST_PAUSE = 0.2
LONGEST_PAUSE = 10.0
#: A pool that lived this long is healthy again, in seconds.
HEALTHY = 30.0
#: Time that a pool gets to give its jobs back, in seconds.
STOP_SECONDS = 10.0
_log = logging.getLogger("bitwright.worker")


class EmbeddedWorker:
    """Keeps one pool process alive. The pool ends by itself when this process dies, however it dies."""

    def __init__(self, settings: Settings, *, slots: int | None = None, steps: str = STEPS) -> None:
        self._settings = settings
        self._command = [sys.executable, "-m", "worker.pool", "--supervised", "--steps", steps]
        self._command += ["--slots", str(settings.workers if slots is None else slots)]
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._supervise, name="embedded-worker", daemon=True)
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the pool that runs now."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    @property
    def alive(self) -> bool:
        return self.pid is not None

    def start(self) -> None:
        """Raises what `open_store` raises: a worker without a database is an error of the start, not of a thread."""
        self._store = open_worker_store(self._settings)
        self._thread.start()

    def stop(self) -> None:
        """Let the pool give its jobs back, then end it."""
        self._stopping.set()
        with self._lock:
            process = self._process
        if process is not None:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
        self._thread.join(STOP_SECONDS)

    def _supervise(self) -> None:
        store, pause = self._store, FIRST_PAUSE
        while not self._stopping.is_set():
            started = time.monotonic()
            owner = new_owner()
            status = self._run_pool(owner)
            self._clean_after(store, owner)
            if self._stopping.is_set():
                break
            pause = FIRST_PAUSE if time.monotonic() - started > HEALTHY else min(LONGEST_PAUSE, pause * 2)
            _log.warning("the worker process ended with status %s; starting it again in %.1f s", status, pause)
            self._stopping.wait(pause)
        store.close()

    def _run_pool(self, owner: str) -> int:
        root = str(Path(__file__).resolve().parent.parent)
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
        with self._lock:
            if self._stopping.is_set():
                return 0
            self._process = process = subprocess.Popen(
                [*self._command, "--owner", owner],
                stdin=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": path},
                start_new_session=True,
            )
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # it died at once: its status tells
            process.stdin.write(json.dumps(self._settings.model_dump(mode="json")) + "\n")
            process.stdin.flush()
        status = process.wait()
        with suppress(BrokenPipeError):
            process.stdin.close()
        return status

    def _clean_after(self, store: JobStore, owner: str) -> None:
        """The pool is dead, and its children with it: its leases need not be waited out."""
        shutil.rmtree(scratch_folder(self._settings.state_dir, owner), ignore_errors=True)
        try:
            store.expire_owner(owner)
        except BitwrightError as error:
            _log.warning("leases of the dead worker will run out by themselves: %s", error.detail)


@contextmanager
def embedded_worker(
    settings: Settings, *, slots: int | None = None, steps: str = STEPS
) -> Iterator[EmbeddedWorker | None]:
    """An embedded worker for as long as the block runs; None when the settings ask for no slots."""
    if (settings.workers if slots is None else slots) == 0:
        yield None
        return
    worker = EmbeddedWorker(settings, slots=slots, steps=steps)
    worker.start()
    try:
        yield worker
    finally:
        worker.stop()
