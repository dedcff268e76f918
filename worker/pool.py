"""A worker process: some runners, each in a thread of its own, and the reaper. `python -m worker.pool` runs one.

Threads only watch: each job works in a child process. SIGTERM and SIGINT give running jobs back and end the process.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Sequence

from bitwright.core.errors import BitwrightError
from bitwright.jobs.logs import start_logging
from bitwright.jobs.spans import Exporter
from bitwright.jobs.store import JobStore
from bitwright.settings import Settings, load_settings
from worker.runner import STEPS, TICK, Runner, scratch_folder
from worker.watchers import open_worker_store, watchers

_log = logging.getLogger("bitwright.worker")


def new_owner() -> str:
    """Names one worker process, on any host, for ever."""
    return f"{socket.gethostname()[:60]}-{os.getpid()}-{secrets.token_hex(6)}"


class Pool:
    """Runner slots and a reaper over one store."""

    def __init__(
        self,
        store: JobStore,
        settings: Settings,
        *,
        slots: int,
        owner: str | None = None,
        queues: Sequence[str] | None = None,
        steps: str = STEPS,
    ) -> None:
        self.owner = owner or new_owner()
        self.stopping = threading.Event()
        self.bell = threading.Event()
        self._store = store
        self._settings = settings
        self._spans = Exporter(settings.otlp_endpoint, "bitwright-worker")
        runner = Runner(store, settings, self.owner, self.stopping, self.bell, queues, steps, self._spans)
        self._threads = [threading.Thread(target=runner.serve, name=f"slot-{number}") for number in range(slots)]
        self._threads += watchers(self.stopping, store, settings)

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Give running jobs back and wait for the threads to end."""
        self.stopping.set()
        self.bell.set()
        for thread in self._threads:
            thread.join()
        self._spans.close()
        shutil.rmtree(scratch_folder(self._settings.state_dir, self.owner), ignore_errors=True)


def run(
    settings: Settings,
    *,
    slots: int,
    owner: str | None = None,
    queues: Sequence[str] | None = None,
    steps: str = STEPS,
    stop: threading.Event | None = None,
) -> int:
    """A pool in this process, until SIGTERM, SIGINT or `stop`. The exit status."""
    stop = stop or threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    start_logging(as_json=settings.json_logs)
    store = open_worker_store(settings)
    pool = Pool(store, settings, slots=slots, owner=owner, queues=queues, steps=steps)
    pool.start()
    # Not one long wait: the kernel may give a signal to any thread, and only a running main thread handles it.
    while not stop.wait(TICK):
        pass
    pool.stop()
    store.close()
    return 0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m worker.pool", description="run jobs until told to stop")
    parser.add_argument("--slots", type=int, default=1, help="jobs at once")
    parser.add_argument("--owner", help="name of this worker in the job table; default: a new one")
    parser.add_argument("--queue", action="append", help="serve this queue only (repeatable)")
    parser.add_argument("--steps", default=STEPS, metavar="MODULE:FUNCTION", help="what a job's child runs")
    parser.add_argument("--supervised", action="store_true", help="read settings from stdin; end when it closes")
    chosen = parser.parse_args(arguments)
    start_logging(as_json=False)
    stop = threading.Event()
    try:
        settings = Settings(**json.loads(sys.stdin.readline())) if chosen.supervised else load_settings()
        if chosen.supervised:
            threading.Thread(target=_stop_at_end_of_stdin, args=(stop,), daemon=True).start()
        return run(settings, slots=chosen.slots, owner=chosen.owner, queues=chosen.queue, steps=chosen.steps, stop=stop)
    except BitwrightError as error:
        _log.error("the worker cannot start: %s", error)
        return error.exit_code


def _stop_at_end_of_stdin(stop: threading.Event) -> None:
    """The supervisor is gone: nobody would restart us or notice our end."""
    while sys.stdin.readline():
        pass
    stop.set()


if __name__ == "__main__":
    sys.exit(main())
