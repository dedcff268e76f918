"""The process of one job: `python -m worker.child ORDER REPORTS`, two file descriptors. Started by `worker.sandbox`.

The order is a JSON document; each line of JSON written to the second descriptor reports progress, then the result or
the problem. stdin stays open while the parent lives. Nothing is pickled, so nothing that this process says can run
code in its parent.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from worker.confine import confine, die_with_parent

#: (request, settings, progress) -> result; the first two and the result are plain JSON.
Work = Callable[[dict[str, Any], dict[str, Any], Callable[[str, float, str], None]], Any]


class Reports:
    """Lines to the parent; progress may come from any thread."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def send(self, kind: str, value: Any) -> None:
        data = memoryview(json.dumps({kind: value}, separators=(",", ":"), allow_nan=False).encode() + b"\n")
        with self._lock:
            while data:
                data = data[os.write(self._descriptor, data) :]

    def progress(self, stage: str, fraction: float, message: str) -> None:
        self.send("progress", [str(stage), float(fraction), str(message)])


def main(arguments: list[str] | None = None) -> int:
    ordered, reporting = map(int, sys.argv[1:] if arguments is None else arguments)
    reports = Reports(reporting)
    with os.fdopen(ordered, "rb") as file:
        order = json.load(file)
    confine(order["limits"], order["parent"], network=order["network"])
    die_with_parent(0)
    try:
        _work_and_tell(order, reports)
    except BaseException as error:  # the last frame of the process: whatever ends the work is told to the parent
        reports.send("problem", _problem(error))
        return 1
    return 0


def _work_and_tell(order: dict[str, Any], reports: Reports) -> None:
    start, failed = time.time_ns(), True
    try:
        result = _work(order, reports)
        failed = False
        _send_span(order, reports, start, failed=False)
        _send_result(reports, result)
    except Exception as error:
        if failed:
            _send_span(order, reports, start, failed=True)
        fan_out = getattr(sys.modules.get("worker.fanout"), "FanOut", None)  # not loaded: nothing can have raised it
        if fan_out is None or not isinstance(error, fan_out):
            raise
        reports.send("fanout", [error.stage, error.parts])


def _send_span(order: dict[str, Any], reports: Reports, start: int, *, failed: bool) -> None:
    """The child's part of a trace; only where its worker gave it one to belong to."""
    parts = os.environ.get("TRACEPARENT", "").split("-")
    if not order["spans"] or len(parts) != 4:
        return
    from bitwright.jobs.spans import INTERNAL, Span

    name = f"child {order['request'].get('kind', '')}"
    span = Span(name, INTERNAL, parts[1], os.urandom(8).hex(), parts[2], start, {"process.pid": os.getpid()})
    reports.send("span", span.to_otlp(time.time_ns(), failed=failed))


def _work(order: dict[str, Any], reports: Reports) -> Any:
    module, _, name = str(order["steps"]).partition(":")
    run: Work = getattr(importlib.import_module(module), name)
    return run(order["request"], order["settings"], reports.progress)


def _send_result(reports: Reports, result: Any) -> None:
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    reports.send("peak", usage if sys.platform == "darwin" else usage * 1024)  # getrusage(2): KiB on Linux
    try:
        reports.send("result", result)
    except ValueError as error:
        from bitwright.core.errors import NotFinite

        raise NotFinite(
            "the result holds NaN or infinity", hint="look for overflow: try another metric or data type"
        ) from error


def _problem(error: BaseException) -> dict[str, Any]:
    """Typed errors as they are, anything else without its internals. The traceback goes to the job's log."""
    import traceback

    from bitwright.core.canonical import FULL
    from bitwright.core.errors import BitwrightError, DiskFull, JobFailed, OutOfResources
    from bitwright.core.exhaustion import ran_out

    traceback.print_exception(error, file=sys.stderr)
    if isinstance(error, BitwrightError):
        return error.to_problem()
    if ran_out(error):
        return OutOfResources(
            "the job ran out of memory",
            hint="raise BITWRIGHT_JOB_MEMORY_BYTES, score fewer tokens, or use a larger machine",
        ).to_problem()
    if isinstance(error, OSError) and error.errno in FULL:
        return DiskFull(
            f"the job cannot write: {error.strerror}", hint="free disk space and submit the job again"
        ).to_problem()
    return JobFailed(
        f"the job met an unexpected error ({type(error).__name__})", hint="see the job's log on the worker"
    ).to_problem()


if __name__ == "__main__":
    sys.exit(main())
