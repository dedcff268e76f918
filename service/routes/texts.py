"""/v1/texts: calibration and evaluation texts, stored under their digests; kept, listed and deleted by tenant."""

from __future__ import annotations

from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from bitwright.core.errors import InvalidCalibration
from service.auth import TenantOf
from service.body import require_media
from service.replies import json_reply
from service.state import StateOf
from service.uploads import NAME_CHARS

router = APIRouter(tags=["texts"])
NameOf = Annotated[str, Query(max_length=NAME_CHARS, description="what people call it")]


@router.post("/v1/texts", summary="Store a calibration text", operation_id="storeText", status_code=201)
async def store_text(request: Request, state: StateOf, tenant: TenantOf, name: NameOf = "") -> Response:
    """UTF-8 text.

    The digest goes into `calibration` or `text` of a job. Storing the same text again changes its name only.
    """
    require_media(request, "text/plain")
    body = _checked(await request.body())
    return json_reply(await to_thread.run_sync(state.uploads.keep, tenant, "texts", body, name, {}), status=201)


@router.get("/v1/texts", summary="Your stored texts", operation_id="listTexts")
async def list_texts(state: StateOf, tenant: TenantOf) -> Response:
    """Newest first."""
    return json_reply({"texts": await to_thread.run_sync(state.uploads.all, tenant, "texts")})


@router.delete("/v1/texts/{digest}", summary="Delete a stored text", operation_id="deleteText", status_code=204)
async def delete_text(digest: str, state: StateOf, tenant: TenantOf) -> Response:
    """Jobs that name it and have not read it yet will fail. Another tenant that stored the same text keeps it."""
    await to_thread.run_sync(state.uploads.drop, tenant, "texts", digest)
    return Response(status_code=204)


def _checked(body: bytes) -> bytes:
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidCalibration("the text is not UTF-8", got=f"a wrong byte at {error.start}") from error
    if not text.strip():
        raise InvalidCalibration("the text is empty", expected="UTF-8 text")
    if "\0" in text:
        raise InvalidCalibration("the text holds NUL characters", hint="is this a binary file?")
    return body
