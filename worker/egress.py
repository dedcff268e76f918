"""Requests to addresses that strangers named: checked when the socket is opened, never before (research/06 C4).

The name is resolved once, every address it has must be a public one, and the socket goes to an address that was
checked; a name that answers differently the second time (DNS rebinding) gains nothing. No redirects, no address
literals, https on port 443; receivers that the operator lists (`host:port`) may be inside and speak http.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import Any

import httpcore
import httpx

from bitwright.core.callbacks import PORT, is_public


def client(internal: Iterable[str], *, seconds: float, proxy: str | None = None) -> httpx.Client:
    """An HTTP client whose every connection is checked; with a proxy, the proxy is the one who checks."""
    limits = httpx.Limits(max_connections=20, max_keepalive_connections=0)
    if proxy is not None:
        return httpx.Client(proxy=proxy, timeout=seconds, follow_redirects=False, trust_env=False, limits=limits)
    transport = httpx.HTTPTransport(trust_env=False, limits=limits)
    transport._pool = httpcore.ConnectionPool(  # httpx has no public way to hand over a network backend
        ssl_context=httpx.create_ssl_context(), network_backend=_Checked(frozenset(internal)), max_connections=20,
        max_keepalive_connections=0,
    )  # fmt: skip
    return httpx.Client(transport=transport, timeout=seconds, follow_redirects=False, trust_env=False)


class _Checked(httpcore.NetworkBackend):
    """Connects to public addresses only. TLS still asks for the name, so certificates are checked against it."""

    def __init__(self, internal: frozenset[str]) -> None:
        self._internal = internal
        self._plain = httpcore.SyncBackend()

    def connect_tcp(self, host: str, port: int, timeout: float | None = None, *more: Any, **options: Any) -> Any:
        if f"{host}:{port}" in self._internal:
            return self._plain.connect_tcp(host, port, timeout, *more, **options)
        if port != PORT:
            raise httpcore.ConnectError("refused: another port than 443")
        return self._plain.connect_tcp(_checked_address(host, port), port, timeout, *more, **options)


def _checked_address(host: str, port: int) -> str:
    try:
        found = {str(row[4][0]) for row in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError) as error:
        raise httpcore.ConnectError("the name has no address") from error
    for address in found:
        if not is_public(address):
            raise httpcore.ConnectError("refused: the name leads to an address that is not public")
    return sorted(found, key=lambda text: ":" in text)[0]
