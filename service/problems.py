"""RFC 9457 problem documents: the one dialect in which every error leaves the service."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from bitwright.core.errors import (
    BitwrightError,
    HttpError,
    Internal,
    InvalidInput,
    InvalidSetting,
    MethodNotAllowed,
    NotFound,
)
from bitwright.core.requests import got_text

MEDIA_TYPE = "application/problem+json"
#: Seconds a client is asked to wait when an error may pass by itself and nothing better is known.
RETRY_AFTER = 1
#: The same where somebody must free room first.
FULL_RETRY_AFTER = 60
METHODS = ("DELETE", "GET", "PATCH", "POST", "PUT")
log = logging.getLogger("bitwright.service")


class NotModified(Exception):
    """The client's copy is still good: 304 with the entity tag and no body (RFC 9110 section 15.4.5)."""

    def __init__(self, etag: str, cache_control: str) -> None:
        super().__init__(etag)
        self.headers = {"ETag": etag, "Cache-Control": cache_control}


def problem_response(error: BitwrightError, request_id: str, headers: Mapping[str, str] | None = None) -> Response:
    """The problem document of an error; `instance` is the request id."""
    document = {**error.to_problem(), "instance": f"urn:bitwright:request:{request_id}"}
    extra = dict(headers or {})
    if error.status == 401:
        extra.setdefault("WWW-Authenticate", "Bearer")
    if error.status in (429, 503, 507) or error.slug == "result-not-ready":
        usual = FULL_RETRY_AFTER if error.status == 507 else RETRY_AFTER
        extra.setdefault("Retry-After", str(error.extra.get("retry_after", usual)))
    extra.setdefault("Cache-Control", "no-store")
    body = json.dumps(document, ensure_ascii=False, default=str).encode("utf-8", "replace")
    return Response(body, status_code=error.status, headers=extra, media_type=MEDIA_TYPE)


def request_id(request: Request) -> str:
    return str(request.scope.get("state", {}).get("request_id", "unknown"))


def from_validation(errors: Sequence[Mapping[str, Any]]) -> InvalidInput:
    """FastAPI's list of wrong parameters as one typed error; `parameter` instead of a body pointer."""
    found = [{"parameter": str(e["loc"][-1]), "in": str(e["loc"][0]), "message": str(e["msg"])} for e in errors]
    first = found[0]
    return InvalidInput(
        f"{first['in']} parameter '{first['parameter']}': {first['message']}",
        expected=first["message"], got=got_text(errors[0]),
        hint="the parameters of every route are in GET /openapi.json", errors=found[:50],
    )  # fmt: skip


def allowed_methods(request: Request) -> str:
    """Every method that some route takes at this address (Starlette names those of the first route only)."""
    found = {
        method
        for method in METHODS
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in request.app.routes)
    }
    return ", ".join(sorted(found | ({"HEAD"} if "GET" in found else set())))


def from_http_exception(error: HTTPException, path: str, method: str, allow: str) -> BitwrightError:
    """Starlette's own 404 and 405 as typed errors; anything else keeps its status."""
    if error.status_code == 404:
        return NotFound("there is nothing at this address", got=path[:200], hint="GET /openapi.json lists every route")
    if error.status_code == 405:
        return MethodNotAllowed("the address exists, but not for this method", expected=allow or None, got=method)
    plain = HttpError(str(error.detail))
    plain.status = error.status_code  # type: ignore[misc]
    return plain


def internal(identity: str) -> Internal:
    return Internal(
        "the server met an error it did not expect; it is logged with the request id",
        hint=f"retry; if it stays, report the request id {identity}",
    )


def install(app: FastAPI) -> None:
    """Map every exception that a route can raise; what still escapes is caught by `service.middleware.Guard`."""

    @app.exception_handler(BitwrightError)
    async def typed(request: Request, error: BitwrightError) -> Response:
        if isinstance(error, InvalidSetting):  # the operator's affair: no request can put it right, none sees its paths
            log.error("%s %s: %s", request_id(request), error.slug, error)
            error = Internal("the server is not set up as it should be; it is logged with the request id")
        elif error.status >= 500:
            log.warning("%s %s: %s", request_id(request), error.slug, error.detail)
        return problem_response(error, request_id(request))

    @app.exception_handler(RequestValidationError)
    async def parameters(request: Request, error: RequestValidationError) -> Response:
        return problem_response(from_validation(error.errors()), request_id(request))

    @app.exception_handler(HTTPException)
    async def plain(request: Request, error: HTTPException) -> Response:
        allow = allowed_methods(request) if error.status_code == 405 else ""
        typed_error = from_http_exception(error, request.url.path, request.method, allow)
        headers = {**(error.headers or {}), **({"Allow": allow} if allow else {})}
        return problem_response(typed_error, request_id(request), headers)

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> Response:
        # Starlette raises it again after this answer, and the guard logs it.
        return problem_response(internal(request_id(request)), request_id(request))

    @app.exception_handler(NotModified)
    async def unchanged(request: Request, error: NotModified) -> Response:
        return Response(status_code=304, headers=error.headers)
