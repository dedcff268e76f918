"""Who may do what: API keys with scopes on an open network, and guards against a browser's visits on this machine.

Without keys a server listens on loopback only. Then any local program may use it, but a web page must not: requests
that a foreign page makes (Sec-Fetch-Site) or that reach us under a foreign name (DNS rebinding) are refused.
"""

from __future__ import annotations

import hmac
import ipaddress
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from bitwright.core.errors import Forbidden, InvalidSetting, Unauthorized
from bitwright.jobs.values import timestamp
from bitwright.settings import Settings
from service.keys import DEFAULT_TENANT, SCOPES, KeyFile

READ, WRITE, EXECUTE, SOLVE, METRICS = SCOPES


@dataclass(frozen=True)
class Principal:
    tenant: str
    scopes: tuple[str, ...]


EVERYONE = Principal(DEFAULT_TENANT, SCOPES)


def is_loopback(host: str) -> bool:
    """Whether an address or name can only be reached from this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Gate:
    """Keys are required once there is one, or when the server listens beyond loopback."""

    def __init__(self, settings: Settings) -> None:
        self.keys = KeyFile(settings.state_dir / "keys.json")
        self._single = settings.api_key.get_secret_value() if settings.api_key else None
        self._open_network = not is_loopback(settings.host)

    def require_keys(self) -> None:
        """Raises InvalidSetting for a server that would listen to everyone and could let nobody in."""
        if self._open_network and self._single is None and not self.keys.all():
            raise InvalidSetting(
                "a server beyond this machine needs an API key",
                expected="a key, or a loopback address such as 127.0.0.1",
                hint="set BITWRIGHT_API_KEY, or make one with: bitwright keys create NAME",
            )

    @property
    def closed(self) -> bool:
        return self._open_network or self._single is not None or bool(self.keys.all())

    def admit(self, request: Request) -> Principal:
        """Raises Unauthorized or Forbidden."""
        if not self.closed:
            _refuse_web_pages(request)
            return EVERYONE
        scheme, _, text = request.headers.get("authorization", "").partition(" ")
        text = text.strip()
        if scheme.lower() != "bearer" or not text:
            raise Unauthorized(
                "this server asks for an API key",
                expected="Authorization: Bearer KEY",
                hint="ask its operator for a key",
            )
        if self._single is not None and hmac.compare_digest(self._single.encode(), text.encode("utf-8", "replace")):
            return EVERYONE
        key = self.keys.find(text)
        if key is None:
            raise Unauthorized("the API key is not valid (any more)", hint="it may have been mistyped or revoked")
        if not key.active(time.time()):  # told to its holder alone: who guesses learns nothing
            raise Unauthorized(
                f"the API key '{key.name}' has expired",
                got=timestamp(key.expires_at),
                hint="ask the operator of this server for a new one",
            )
        return Principal(key.tenant, key.scopes)


def _refuse_web_pages(request: Request) -> None:
    name = (request.url.hostname or "").lower()
    if request.headers.get("sec-fetch-site") in ("cross-site", "same-site") and request.method != "GET":
        raise Forbidden("another site's page made this request", hint="open the dashboard of this server itself")
    if not is_loopback(name):
        raise Forbidden(
            "this server answers under its local name only", expected="localhost or 127.0.0.1", got=name[:80]
        )


Check = Callable[[Request], Awaitable[None]]


def require(scope: str, *, writing: str | None = None) -> Check:
    """A dependency: the caller holds `scope`, or `writing` for requests that are not GET."""

    async def check(request: Request) -> None:
        principal = request.app.state.bitwright.gate.admit(request)
        wanted = scope if writing is None or request.method == "GET" else writing
        if wanted not in principal.scopes:
            raise Forbidden("the API key does not have this scope", expected=wanted, got=", ".join(principal.scopes))
        request.state.principal, request.state.tenant = principal, principal.tenant

    return check


def admit_again(request: Request) -> None:
    """For requests that last: a key that was revoked or has expired meanwhile learns no more. Raises as `admit`."""
    request.app.state.bitwright.gate.admit(request)


async def _tenant(request: Request) -> str:
    return str(request.state.tenant)


TenantOf = Annotated[str, Depends(_tenant)]


async def _principal(request: Request) -> Principal:
    found: Principal = request.state.principal
    return found


PrincipalOf = Annotated[Principal, Depends(_principal)]
