"""Reading request bodies: the media type is checked, then the JSON, before validation begins."""

from __future__ import annotations

import re
from typing import Any

from fastapi import Request

from bitwright.core.errors import UnsupportedMedia
from service.strict_json import parse_json_body


async def read_json(request: Request) -> Any:
    """The body as a JSON value. Raises UnsupportedMedia (415) or InvalidInput (422)."""
    require_media(request, "application/json")
    return parse_json_body(await request.body())


def require_media(request: Request, *accepted: str) -> str:
    """The media type of the body, which must be one of `accepted`."""
    media, _, parameters = request.headers.get("content-type", "").partition(";")
    charset = re.search(r"charset\s*=\s*\"?([^\s;\"]+)", parameters, re.IGNORECASE)
    name = media.strip().lower()
    if name not in accepted or (charset and charset[1].lower() not in ("utf-8", "utf8")):
        raise UnsupportedMedia(
            "the body has another content type",
            expected=" or ".join(accepted),
            got=request.headers.get("content-type", "")[:80],
        )
    return name
