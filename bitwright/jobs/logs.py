"""Logs of servers and workers: text, or one JSON object a line; every line names the job and trace it belongs to.

Secrets never come here: keys, tokens and model bytes are in no message, and a line is cut at LINE characters.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from contextvars import ContextVar
from typing import Any

from bitwright.jobs.values import Job

TEXT = "%(asctime)s %(levelname)s %(name)s %(message)s"
#: Longest message that is written, in characters.
LINE = 8000
_job: ContextVar[tuple[str, str] | None] = ContextVar("bitwright_job", default=None)


def log_job(job: Job | None) -> None:
    """What this thread logs from now on belongs to `job`."""
    _job.set(None if job is None else (job.id, trace_id(job.traceparent)))


def trace_id(traceparent: str | None) -> str:
    """The 32 hexadecimal digits of a W3C traceparent; empty without one."""
    parts = (traceparent or "").split("-")
    return parts[1] if len(parts) == 4 else ""


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and job and trace where there are any."""

    def format(self, record: logging.LogRecord) -> str:
        job = _job.get()
        document: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{record.msecs:03.0f}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage()[:LINE],
        }
        if job is not None:
            document |= {"job_id": job[0], **({"trace_id": job[1]} if job[1] else {})}
        document |= {name: getattr(record, name) for name in ("request_id", "trace_id") if hasattr(record, name)}
        if record.exc_info:
            document["exception"] = self.formatException(record.exc_info)[-LINE:]
        return json.dumps(document, ensure_ascii=True)


def start_logging(*, as_json: bool) -> None:
    """Log to stderr, from INFO up."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if as_json else logging.Formatter(TEXT))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
