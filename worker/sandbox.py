"""One spawned process for each job: started, listened to and killed here. Knows nothing of job tables.

Spawned, never forked (research/06 C6): CUDA and threads survive, a crash of native code kills one job alone, and all
memory of the job is free when its process is gone.
"""

from __future__ import annotations

import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from bitwright.settings import Settings

#: Variables that a child inherits; everything else (tokens, database and broker addresses) stays outside.
_INHERITED = (
    *("PATH", "HOME", "USER", "LANG", "LANGUAGE", "TZ", "TERM", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "SOURCE_DATE_EPOCH"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "XDG_CACHE_HOME", "PYTHONHASHSEED"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
    *("HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_ENDPOINT", "HF_TOKEN_PATH"),
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "CUDA_HOME"),
)
#: Settings that are secret or of no use inside a child.
_WITHHELD = {"database_url", "broker_url", "webhook_internal"}
_CHUNK = 1 << 16


@dataclass(frozen=True)
class Order:
    """What one child does. `steps`: "module:function", see `worker.child.Work`; `scratch`: its private TMPDIR."""

    request: Mapping[str, Any]
    settings: Settings
    steps: str
    log: Path
    scratch: Path
    traceparent: str | None = None

    @property
    def network(self) -> bool:
        """Only what lies on the hub is worth a way out."""
        return any(str(self.request.get(member, "")).startswith("hf:") for member in ("model", "source"))

    def to_json(self) -> bytes:
        limits = {
            "memory": self.settings.job_memory_bytes,
            "cpu": self.settings.job_cpu_seconds,
            "file": self.settings.job_file_bytes,
            "descriptors": self.settings.job_descriptors,
        }
        settings = self.settings.model_dump(mode="json", exclude=_WITHHELD)
        order = {
            "request": self.request,
            "settings": settings,
            "steps": self.steps,
            "limits": limits,
            "network": self.network,
            "spans": self.settings.otlp_endpoint is not None,
            "parent": os.getpid(),
        }
        return json.dumps(order, separators=(",", ":")).encode()

    def environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        root = str(Path(__file__).resolve().parent.parent)
        kept["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
        kept["TMPDIR"] = str(self.scratch)
        kept["BITWRIGHT_DEVICE"] = self.settings.device
        if self.network and "HF_TOKEN" in os.environ:
            kept["HF_TOKEN"] = os.environ["HF_TOKEN"]
        if self.traceparent:
            kept["TRACEPARENT"] = self.traceparent
        return kept


class Oversized(Exception):
    """A child sent more than it may."""


class Child:
    """A running child. Use as a context manager: at its end the whole process group is dead and its scratch is gone."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._limit = order.settings.job_report_bytes
        self._lines: list[bytes] = []
        self._rest = bytearray()
        order.scratch.mkdir(parents=True, exist_ok=True)
        order.log.parent.mkdir(parents=True, exist_ok=True)
        self._reports, writing = os.pipe()
        os.set_blocking(self._reports, False)
        try:
            self.process = _start(order, writing)
        except BaseException:
            os.close(self._reports)
            raise
        finally:
            os.close(writing)
        self.peak_memory = 0
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._reports, selectors.EVENT_READ)

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._selector.close()
        os.close(self._reports)
        shutil.rmtree(self._order.scratch, ignore_errors=True)

    @property
    def exited(self) -> bool:
        """Whether the process has ended. It is not reaped here: its group could then be mistaken for another one."""
        if self.process.returncode is not None:
            return True
        return os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def memory(self) -> int:
        """Resident bytes of the child and of what it has started."""
        try:
            main = psutil.Process(self.process.pid)
            found = sum(process.memory_info().rss for process in (main, *main.children(recursive=True)))
        except psutil.Error:  # it is just ending
            return 0
        self.peak_memory = max(self.peak_memory, found)
        return found

    def reports(self, timeout: float) -> list[dict[str, Any]]:
        """What the child has said, waiting up to `timeout` seconds when it has said nothing. Raises Oversized."""
        if self._selector.select(timeout):
            while chunk := self._read():
                self._take(chunk)
        lines, self._lines = self._lines, []
        return [report for report in map(_parse, lines) if report is not None]

    def exit_reason(self) -> str:
        """Why it ended, for people; ends it when it has not."""
        self.kill()
        status = self.process.returncode
        if status >= 0:
            return f"it exited with status {status} and no result"
        name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
        hint = " (often the system's memory limit)" if status == -signal.SIGKILL else ""
        return f"it was killed by {name}{hint}"

    def kill(self) -> None:
        """End the whole process group, whatever it does; returns when the child is gone."""
        if self.process.returncode is None:
            with suppress(ProcessLookupError, PermissionError):  # nobody of the group is left (macOS says EPERM)
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()

    def _read(self) -> bytes:
        try:
            chunk = os.read(self._reports, _CHUNK)
        except BlockingIOError:
            return b""
        if not chunk and self._selector.get_map():  # the end: from now on `reports` waits without it
            self._selector.unregister(self._reports)
        return chunk

    def _take(self, chunk: bytes) -> None:
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            self._lines.append(bytes(self._rest) + end)
            self._rest.clear()
        self._rest += rest
        if len(self._rest) > self._limit or any(len(line) > self._limit for line in self._lines):
            raise Oversized


def _start(order: Order, reports: int) -> subprocess.Popen[bytes]:
    """Start the child. The order travels in a file without a name: a pipe could block on a child that does not read."""
    command = [sys.executable, "-m", "worker.child"]
    with tempfile.TemporaryFile(dir=order.scratch) as file, order.log.open("ab") as log:
        file.write(order.to_json())
        file.seek(0)
        return subprocess.Popen(
            [*command, str(file.fileno()), str(reports)], stdin=subprocess.PIPE, stdout=log, stderr=log,
            pass_fds=(reports, file.fileno()), env=order.environment(), start_new_session=True,
        )  # fmt: skip


def _parse(line: bytes) -> dict[str, Any] | None:
    """A report; None for a line that is none: a child that was overrun says nothing, and is judged by its exit."""
    try:
        report = json.loads(line)
    except ValueError:
        return None
    return report if isinstance(report, dict) else None
