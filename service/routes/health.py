"""Probes, metrics and the OpenAPI document."""

from __future__ import annotations

from anyio import to_thread
from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from bitwright.core.errors import BitwrightError, Temporary
from bitwright.jobs.migrate import is_current
from service.auth import METRICS, require
from service.metrics import exposition
from service.replies import json_reply, tagged_json
from service.state import State, StateOf

router = APIRouter(tags=["operations"])


@router.get("/livez", summary="The process answers", operation_id="livez")
async def livez() -> Response:
    """Touches nothing: a database hiccup must not restart the fleet."""
    return json_reply({"status": "ok"})


@router.get("/readyz", summary="Requests can be served", operation_id="readyz")
async def readyz(state: StateOf) -> Response:
    """200 when the job database answers and its schema serves this program, else 503."""
    await to_thread.run_sync(_check, state)
    return json_reply({"status": "ok"})


@router.get("/startupz", summary="Start-up is over", operation_id="startupz")
async def startupz(state: StateOf) -> Response:
    if not state.ready:
        raise Temporary("the server is still starting")
    return json_reply({"status": "ok"})


@router.get("/metrics", summary="Prometheus metrics", operation_id="metrics", dependencies=[Depends(require(METRICS))])
async def metrics(state: StateOf) -> Response:
    """Read from the job table at scrape time: the same numbers whichever replica answers."""
    text = await to_thread.run_sync(exposition, state)
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8", headers={"Cache-Control": "no-store"})


@router.get("/openapi.json", include_in_schema=False)
async def openapi(request: Request) -> Response:
    return tagged_json(request, request.app.openapi())


def _check(state: State) -> None:
    try:
        serves = is_current(state.store.database)
    except BitwrightError as error:
        raise Temporary("the job database does not answer", got=error.detail) from error
    if not serves:
        raise Temporary("the schema of the job database no longer serves this program", hint="upgrade bitwright here")
