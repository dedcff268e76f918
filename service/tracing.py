"""W3C trace context of a request: what the caller sent, or a new one where spans are exported."""

from __future__ import annotations

import re

from fastapi import Request

#: https://www.w3.org/TR/trace-context/ section 3.2.2, version 00.
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def traceparent_of(request: Request) -> str | None:
    """The trace that the request belongs to: the span that the guard opened, else the caller's header."""
    opened = request.scope.get("state", {}).get("traceparent")
    header = opened or request.headers.get("traceparent", "")
    return header if _TRACEPARENT.fullmatch(header) else None
