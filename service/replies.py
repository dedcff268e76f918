"""JSON answers with entity tags and cache rules."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fastapi import Request
from starlette.responses import Response

from bitwright.core.canonical import digest_bytes
from service.preferences import etag, matches
from service.problems import NotModified

REVALIDATE = "private, no-cache"
#: Content-addressed: what lies under a digest never changes (research/06 A5).
IMMUTABLE = "private, max-age=31536000, immutable"


def json_bytes(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def json_reply(value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return raw_reply(json_bytes(value), status=status, headers={"Cache-Control": "no-store", **(headers or {})})


def raw_reply(body: bytes, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(body, status_code=status, headers=dict(headers or {}), media_type="application/json")


def tagged_headers(request: Request, tag: str, cache_control: str) -> dict[str, str]:
    """ETag and Cache-Control; raises NotModified when the client holds this very version."""
    quoted = etag(tag)
    if matches(request.headers.get("if-none-match"), quoted):
        raise NotModified(quoted, cache_control)
    return {"ETag": quoted, "Cache-Control": cache_control}


def tagged_json(request: Request, value: Any, *, cache_control: str = REVALIDATE) -> Response:
    """A JSON answer whose entity tag is the digest of its bytes."""
    body = json_bytes(value)
    return raw_reply(
        body, headers=tagged_headers(request, digest_bytes(body).removeprefix("sha256:")[:32], cache_control)
    )
