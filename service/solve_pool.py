"""Warm, limited solver processes for the synchronous routes: killed at the wall limit, replaced when lost."""

from __future__ import annotations

import io
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bitwright.core.errors import Internal, OutOfResources, Temporary, WorkerLost, from_problem
from bitwright.core.problem import Problem
from bitwright.core.problem_file import problem_to_arrays
from bitwright.core.solution import Solution, solution_from_json
from bitwright.settings import Settings
from service.frames import TimedReader, frame_bytes, read_frame, send_timed
from service.solve_bounds import Bounds

log = logging.getLogger("bitwright.service")
#: Seconds a request waits for a free process before it is asked to come again.
QUEUE_SECONDS = 10.0
#: What a child sees of our environment: enough to find libraries, no secrets (research/06 C6).
_KEPT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "TMPDIR")


def child_environment() -> dict[str, str]:
    root = str(Path(__file__).resolve().parent.parent)
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return {**kept, "PYTHONPATH": root, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


class SolveProcess:
    """One child. Used by one thread at a time."""

    def __init__(self, memory: int) -> None:
        command = [sys.executable, "-P", "-m", "service.solve_child", str(memory)]
        self._child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=child_environment(),
            start_new_session=True,
            close_fds=True,
        )
        self._ready = False
        self.told: dict[str, Any] = {}

    @property
    def alive(self) -> bool:
        return self._child.poll() is None

    def call(self, header: Mapping[str, Any], payload: bytes, seconds: float) -> bytes:
        """The JSON answer.

        Raises the typed error of the child, OutOfResources past `seconds`, WorkerLost if it died.
        """
        end = time.monotonic() + seconds
        try:
            frame = self._exchange(header, payload, end)
        except (OSError, ValueError, EOFError):
            frame = None
        if frame is None:
            late = time.monotonic() >= end
            self.kill()
            self._child.wait()  # from here on it counts as dead, and is replaced
            if late:
                raise OutOfResources(
                    "the solver ran past its wall limit and was stopped", expected=f"at most {seconds:g} s"
                )
            if self._child.returncode == -signal.SIGXCPU:
                raise OutOfResources(
                    "the solver used more processor time than it may and was stopped",
                    expected=f"at most {header['cpu_seconds']} s", hint="use a smaller problem or fewer threads",
                )  # fmt: skip
            raise WorkerLost("the solver process died", hint="it may have run out of memory; use a smaller problem")
        self.told = frame[0]
        return _unpack(*frame)

    def _exchange(self, header: Mapping[str, Any], payload: bytes, end: float) -> tuple[dict[str, Any], bytes] | None:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        answers = TimedReader(self._child.stdout.fileno(), end)
        if not self._ready and read_frame(answers) is None:
            return None
        self._ready = True
        send_timed(self._child.stdin.fileno(), frame_bytes(dict(header), payload), end)
        return read_frame(answers)

    def kill(self) -> None:
        self._child.kill()

    def close(self) -> None:
        self.kill()
        self._child.wait()
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError as error:  # unflushed bytes for a child that is gone
                    log.debug("closing a solver's pipe: %s", error)


class Asked(Exception):
    """The request names a stored file by kind (`tables`, `problems`) and digest; the pool does not know whose it is."""

    def __init__(self, kind: str, digest: str) -> None:
        super().__init__(kind, digest)
        self.kind, self.digest = kind, digest


def _unpack(header: dict[str, Any], payload: bytes) -> bytes:
    if header["ok"]:
        return payload
    if "asks" in header:
        raise Asked(*header["asks"])
    if "trace" in header:
        log.error("solver process failed:\n%s", header["trace"])
        raise Internal("the solver met an error it did not expect; it is logged", hint="try another solver")
    raise from_problem(json.loads(payload))


#: (kind of a stored file, digest) -> whether the caller may use it.
Owns = Callable[[str, str], bool]


@dataclass(frozen=True)
class Limits:
    seconds: float
    cpu_seconds: int
    memory: int


class SolvePool:
    """`solve_processes` children behind a queue. `run` blocks and is called from worker threads."""

    def __init__(self, settings: Settings) -> None:
        self._limits = Limits(settings.solve_seconds, settings.solve_cpu_seconds, settings.solve_memory_bytes)
        self._bounds = asdict(Bounds.of(settings))
        self._tables = str((settings.blob_dir / "tables").absolute())
        self._problems = str((settings.blob_dir / "problems").absolute())
        self._count = settings.solve_processes
        self._idle: queue.LifoQueue[SolveProcess | None] = queue.LifoQueue()
        self._all: set[SolveProcess] = set()
        self._lock = threading.Lock()
        self._closed = False
        #: Answers by certificate status, and the largest gap among them, since this server started.
        self.statuses: Counter[str] = Counter()
        self.largest_gap = 0.0
        for _ in range(self._count):
            self._idle.put(None)

    def warm(self) -> None:
        """Start the processes ahead of the first request."""
        for _ in range(self._count):
            self._idle.put(self._started(self._idle.get_nowait()))

    def run(
        self, operation: str, payload: bytes, *, encoding: str = "json", options: Mapping[str, Any] | None = None,
        owns: Owns | None = None,
    ) -> bytes:  # fmt: skip
        """JSON bytes of the answer. A process that died is replaced and the request tried once more.

        owns: (kind, digest) -> whether the caller may use a stored file that the request names; None: every one.
        """
        try:
            return self._run(operation, payload, encoding, options, None if owns is not None else True)
        except Asked as asked:
            mine = owns is not None and owns(asked.kind, asked.digest)
            return self._run(operation, payload, encoding, options, mine)

    def solve(self, problem: Problem, seconds: float) -> Solution:
        """By the solver that `auto` takes. Raises TooLarge, Temporary, OutOfResources, WorkerLost."""
        body = io.BytesIO()
        np.savez(body, **problem_to_arrays(problem))  # type: ignore[arg-type]
        options = {"solver": "auto", "time_limit": seconds, "seed": 0}
        return solution_from_json(json.loads(self.run("solve", body.getvalue(), encoding="npz", options=options)))

    def _run(
        self, operation: str, payload: bytes, encoding: str, options: Mapping[str, Any] | None, may_use: bool | None
    ) -> bytes:
        limits = self._limits
        header = {
            "operation": operation,
            "encoding": encoding,
            "options": dict(options or {}),
            "seconds": limits.seconds,
            "cpu_seconds": limits.cpu_seconds,
            "bounds": self._bounds,
            "tables": self._tables,
            "problems": self._problems,
            "may_use": may_use,
        }
        try:
            process = self._idle.get(timeout=QUEUE_SECONDS)
        except queue.Empty:
            raise Temporary("every solver process is busy", hint="retry after a moment", retry_after=2) from None
        try:
            process = self._started(process)
            try:
                return self._counted(process, header, payload)
            except WorkerLost:
                process = self._started(process)
                return self._counted(process, header, payload)
        finally:
            self._idle.put(process)

    def _counted(self, process: SolveProcess, header: Mapping[str, Any], payload: bytes) -> bytes:
        answer = process.call(header, payload, self._limits.seconds)
        if process.told.get("status"):
            with self._lock:
                self.statuses[str(process.told["status"])] += 1
                self.largest_gap = max(self.largest_gap, float(process.told.get("gap") or 0.0))
        return answer

    def _started(self, process: SolveProcess | None) -> SolveProcess:
        if process is not None and process.alive:
            return process
        with self._lock:
            if self._closed:
                raise Temporary("the server is stopping")
            if process is not None:
                self._all.discard(process)
                process.close()
            fresh = SolveProcess(self._limits.memory)
            self._all.add(fresh)
            return fresh

    def close(self) -> None:
        with self._lock:
            self._closed = True
            for process in self._all:
                process.close()
            self._all.clear()
