"""The guard around every request: request id, size and encoding limits, security headers, the last catch of errors.

Plain ASGI, so that limits hold before anything is parsed and streams are not buffered.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bitwright.core.errors import BitwrightError, HttpError, TooLarge, UnsupportedMedia
from bitwright.jobs.spans import SERVER, Exporter, Span, open_span
from service.metrics import Counts
from service.problems import internal, problem_response

log = logging.getLogger("bitwright.service")
access = logging.getLogger("bitwright.access")

#: Content-Security-Policy of everything served: own files only, no inline script or style, no framing.
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SECURITY_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=()",
}
#: A refused body is still read up to this many times the cap (and this long), so that the client gets to see the answer
#: instead of a reset connection.
DRAIN_FACTOR, DRAIN_SECONDS = 4, 5.0
_RAW_HEADERS = tuple((name.lower().encode(), value.encode()) for name, value in SECURITY_HEADERS.items())
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")


class Guard:
    """Outermost application. `max_bytes`: cap of a request body, with or without Content-Length; `uploads`: path -> cap
    of what is stored as it is."""

    def __init__(
        self, app: ASGIApp, *, max_bytes: int, uploads: Mapping[str, int], spans: Exporter, counts: Counts
    ) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.uploads = uploads
        self.spans = spans
        self.counts = counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        offered = headers.get("x-request-id", "")
        identity = offered if _REQUEST_ID.fullmatch(offered) else secrets.token_hex(12)
        scope.setdefault("state", {})["request_id"] = identity
        status, begin, head = 0, time.perf_counter(), scope["method"] == "HEAD"
        span = self._open_span(scope, headers) if self.spans.enabled else None
        if head:  # every GET answers HEAD with the same headers and no body (RFC 9110 section 9.3.2)
            scope["method"] = "GET"

        async def guarded_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])
                given = {name for name, _ in message["headers"]}
                more = [pair for pair in _RAW_HEADERS if pair[0] not in given]
                own = [*more, (b"x-request-id", identity.encode())]
                message = {**message, "headers": [*message["headers"], *own]}
            elif head and message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        try:
            limit = self.uploads.get(scope["path"], self.max_bytes)
            await self._refuse_early(headers, receive, limit)
            await self.app(scope, self._counted(receive, limit), guarded_send)
        except BitwrightError as error:
            await problem_response(error, identity, {"Connection": "close"})(scope, receive, guarded_send)
        except Exception:
            log.exception("request %s: %s %r failed", identity, scope["method"], scope["path"])
            if not status:
                await problem_response(internal(identity), identity)(scope, receive, guarded_send)
        finally:
            self._account(scope, identity, status, time.perf_counter() - begin, span)

    def _open_span(self, scope: Scope, headers: Headers) -> Span:
        span = open_span(scope["method"], SERVER, headers.get("traceparent"))
        scope["state"]["traceparent"] = span.traceparent
        return span

    def _account(self, scope: Scope, identity: str, status: int, seconds: float, span: Span | None) -> None:
        """Count the request under its route (never its path: names of jobs are no labels) and log it."""
        route = getattr(scope.get("route"), "path", "other")
        self.counts.add(scope["method"], route, status, seconds)
        if span is not None:
            span.name = f"{scope['method']} {route}"
            self.spans.end(span, failed=status >= 500, **{"http.response.status_code": status, "http.route": route})
        if access.isEnabledFor(logging.INFO):
            extra = {"request_id": identity, **({"trace_id": span.trace} if span is not None else {})}
            access.info("%s %s %d %.1f ms", scope["method"], route, status, 1000 * seconds, extra=extra)

    async def _refuse_early(self, headers: Headers, receive: Receive, limit: int) -> None:
        if "content-length" in headers and "transfer-encoding" in headers:
            # Where servers disagree about which of them holds, a request hides inside another (RFC 9112 section 6.3).
            raise HttpError("the request has two lengths", expected="Content-Length or Transfer-Encoding, not both")
        encoding = headers.get("content-encoding", "identity").strip().lower()
        if encoding not in ("", "identity"):
            await self._drain(receive, limit)
            raise UnsupportedMedia(
                "compressed request bodies are not taken",
                expected="no Content-Encoding",
                got=encoding[:40],
                hint="send the body as it is; the limit is on its plain size",
            )
        length = headers.get("content-length", "")
        if length.isascii() and length.isdigit() and int(length[:20]) > limit:
            if len(length) < 20 and int(length) <= DRAIN_FACTOR * limit:
                await self._drain(receive, limit)
            raise self._too_large(f"{length[:20]} bytes", limit)

    def _too_large(self, got: str, limit: int) -> TooLarge:
        return TooLarge(
            "the request body is too large",
            expected=f"at most {limit} bytes",
            got=got,
            hint="use the command line for larger problems, or raise BITWRIGHT_MAX_REQUEST_BYTES",
        )

    def _counted(self, receive: Receive, limit: int) -> Receive:
        total = 0

        async def counted() -> Message:
            nonlocal total
            message = await receive()
            total += len(message.get("body", b""))
            if total > limit:
                if message.get("more_body"):
                    await self._drain(receive, limit)
                raise self._too_large(f"more than {limit} bytes", limit)
            return message

        return counted

    async def _drain(self, receive: Receive, limit: int) -> None:
        left, deadline = limit * DRAIN_FACTOR, time.monotonic() + DRAIN_SECONDS
        try:
            while left > 0 and (wait := deadline - time.monotonic()) > 0:
                message = await asyncio.wait_for(receive(), wait)
                left -= len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body"):
                    return
        except TimeoutError:
            return
