"""Spans for OpenTelemetry, sent as OTLP over HTTP in its JSON form; none is made unless an endpoint is set.

A request's span is the parent of every attempt of its job, whichever worker makes it and however often: the job's row
holds the `traceparent`. A child has no network: it tells its span to its worker, which sends it.

https://opentelemetry.io/docs/specs/otlp/ (OTLP/HTTP, JSON Protobuf encoding); https://www.w3.org/TR/trace-context/
"""

from __future__ import annotations

import json
import logging
import queue
import secrets
import threading
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: Spans that wait to be sent; more are dropped, work never waits for a collector.
WAITING = 2048
#: Spans of one request to the collector, and seconds between two.
BATCH, PAUSE = 256, 1.0
#: Span kinds and status codes of the protocol.
SERVER, CONSUMER, INTERNAL = 2, 5, 1
_OK, _ERROR = 1, 2
log = logging.getLogger("bitwright.spans")


@dataclass
class Span:
    """One piece of work; `traceparent` names it to what it causes. Times in nanoseconds since 1970."""

    name: str
    kind: int
    trace: str
    id: str
    parent: str = ""
    start: int = 0
    attributes: dict[str, str | int | float] = field(default_factory=dict)

    @property
    def traceparent(self) -> str:
        return f"00-{self.trace}-{self.id}-01"

    def to_otlp(self, end: int, *, failed: bool) -> dict[str, Any]:
        return {
            "traceId": self.trace,
            "spanId": self.id,
            **({"parentSpanId": self.parent} if self.parent else {}),
            "name": self.name,
            "kind": self.kind,
            "startTimeUnixNano": str(self.start),
            "endTimeUnixNano": str(end),
            "attributes": [{"key": key, "value": _value(value)} for key, value in self.attributes.items()],
            "status": {"code": _ERROR if failed else _OK},
        }


def open_span(name: str, kind: int, traceparent: str | None, **attributes: str | int | float) -> Span:
    """A span that begins now, in the trace of `traceparent` or in a new one."""
    parts = (traceparent or "").split("-")
    known = len(parts) == 4
    trace, parent = (parts[1], parts[2]) if known else (secrets.token_hex(16), "")
    return Span(name, kind, trace, secrets.token_hex(8), parent, time.time_ns(), dict(attributes))


class Exporter:
    """Sends spans in a thread of its own. `endpoint`: http://host:4318, or None: spans are then dropped."""

    def __init__(self, endpoint: str | None, service: str) -> None:
        self.enabled = endpoint is not None
        self._url = f"{(endpoint or '').rstrip('/')}/v1/traces"
        self._service = service
        self._waiting: queue.Queue[dict[str, Any] | None] = queue.Queue(WAITING)
        self._thread = threading.Thread(target=self._send_all, name="spans", daemon=True)
        if self.enabled:
            self._thread.start()

    def end(self, span: Span, *, failed: bool = False, **attributes: str | int | float) -> None:
        """The span is over; it goes out soon, or is dropped when the collector cannot keep up."""
        if self.enabled:
            span.attributes.update(attributes)
            self.put(span.to_otlp(time.time_ns(), failed=failed))

    def put(self, document: dict[str, Any]) -> None:
        try:
            self._waiting.put_nowait(document)
        except queue.Full:
            log.debug("a span was dropped: the collector does not keep up")

    def close(self) -> None:
        """Send what is left, for a few seconds at most."""
        if self.enabled:
            self._waiting.put(None)
            self._thread.join(5)

    def _send_all(self) -> None:
        open_ = True
        while open_:
            batch: list[dict[str, Any]] = []
            end = time.monotonic() + PAUSE
            while open_ and len(batch) < BATCH and (left := end - time.monotonic()) > 0:
                try:
                    found = self._waiting.get(timeout=left)
                except queue.Empty:
                    break
                open_ = found is not None
                batch += [found] if found is not None else []
            if batch:
                self._send(batch)

    def _send(self, batch: list[dict[str, Any]]) -> None:
        resource = {"attributes": [{"key": "service.name", "value": {"stringValue": self._service}}]}
        scope = [{"scope": {"name": "bitwright"}, "spans": batch}]
        body = json.dumps({"resourceSpans": [{"resource": resource, "scopeSpans": scope}]}).encode()
        request = urllib.request.Request(self._url, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                answer.read(1024)
        except OSError as error:
            log.warning("%d spans could not be sent: %s", len(batch), error)


def _value(value: str | int | float) -> Mapping[str, Any]:
    if isinstance(value, int):
        return {"intValue": str(value)}
    return {"doubleValue": value} if isinstance(value, float) else {"stringValue": value}
