"""Addresses that webhooks may go to: what can be refused from the text alone, and which addresses are public.

The text is checked when a job is accepted, so that its sender hears of it; what counts is the check of the address when
the socket is opened (`worker.egress`).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from bitwright.core.errors import InvalidInput

#: Never reached, though the standard library calls some of them global: NAT64 (RFC 6052) and 6to4 (RFC 7526) lead to
#: embedded IPv4 addresses, 100.64/10 is carrier-grade NAT.
_REFUSED = tuple(
    ipaddress.ip_network(text) for text in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "100.64.0.0/10")
)
PORT = 443


def check_callback(url: str, internal: Iterable[str]) -> str:
    """The address, if a webhook could ever go there. Raises InvalidInput. Resolves nothing."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"https": 443, "http": 80}.get(parts.scheme)
    except ValueError as error:
        raise _bad(str(error)) from error
    host = parts.hostname or ""
    if len(url) > 2048 or not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise _bad("characters that no address has, or too many")
    if parts.username is not None or parts.password is not None:
        raise _bad("a user name or password")
    if f"{host}:{port}" in set(internal) and parts.scheme in ("http", "https"):
        return url
    if parts.scheme != "https" or port != PORT:
        raise _bad("another scheme or port than https on 443")
    if not host or _literal(host) or "." not in host.strip(".") or host.endswith((".localhost", ".local", ".internal")):
        raise _bad("an address instead of a public name")
    return url


def is_public(address: str) -> bool:
    """Whether packets to that address leave for the public internet, whatever it embeds."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    refused = any(found in network for network in _REFUSED if network.version == found.version)
    return found.is_global and not found.is_multicast and not found.is_reserved and not refused


def _literal(host: str) -> bool:
    """An address in any notation that some resolver takes: dotted, decimal, octal, hexadecimal, IPv6."""
    last = host.rstrip(".").rpartition(".")[2].lower()
    return ":" in host or last.isdigit() or last.startswith("0x") or last == "localhost"


def _bad(got: str) -> InvalidInput:
    return InvalidInput(
        "the callback cannot be used",
        expected="https://name/path on port 443, a public name, no user or password",
        got=got,
        errors=[{"pointer": "/callback", "message": got}],
    )
