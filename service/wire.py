"""The one answer that is given before there is a request: bytes that are no HTTP get a problem like all others."""

from __future__ import annotations

import logging
import secrets

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from bitwright.core.errors import HttpError
from service.middleware import SECURITY_HEADERS
from service.problems import problem_response

log = logging.getLogger("bitwright.access")


class Protocol(H11Protocol):
    """uvicorn's HTTP/1.1; its own answer to a broken request is plain text without our headers."""

    def send_400_response(self, msg: str) -> None:
        """Raises nothing: the connection ends with it."""
        identity = secrets.token_hex(12)
        error = HttpError("this cannot be read as an HTTP request", expected="HTTP/1.1 (RFC 9112)", got=msg[:80])
        found = problem_response(error, identity, {"Connection": "close", "X-Request-Id": identity})
        log.info("%s 400", "unreadable", extra={"request_id": identity})
        headers = [*found.raw_headers, *((n.lower().encode(), v.encode()) for n, v in SECURITY_HEADERS.items())]
        for event in (
            h11.Response(status_code=error.status, headers=headers, reason=b"Bad Request"),
            h11.Data(data=bytes(found.body)),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
