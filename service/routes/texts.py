"""POST /v1/texts: calibration and evaluation text, stored under its digest."""

from __future__ import annotations

from anyio import to_thread
from fastapi import APIRouter, Request
from starlette.responses import Response

from bitwright.core.errors import InvalidCalibration
from service.body import require_media
from service.replies import json_reply
from service.state import StateOf

router = APIRouter(tags=["texts"])


@router.post("/v1/texts", summary="Store a calibration text", operation_id="storeText", status_code=201)
async def store_text(request: Request, state: StateOf) -> Response:
    """UTF-8 text.

    The digest goes into `calibration` or `text` of a job. Storing the same text again changes nothing.
    """
    require_media(request, "text/plain")
    body = await request.body()
    digest = await to_thread.run_sync(state.blobs.put, "texts", _checked(body))
    return json_reply({"digest": digest, "bytes": len(body)}, status=201)


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
