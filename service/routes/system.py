"""GET /v1/system for operators, GET /v1/models for whoever starts a job."""

from __future__ import annotations

from anyio import to_thread
from fastapi import APIRouter, Depends
from starlette.responses import Response

from service.auth import METRICS, READ, TenantOf, require
from service.models import models_document
from service.replies import json_reply
from service.state import StateOf
from service.system import system_document

router = APIRouter(tags=["operations"])


@router.get(
    "/v1/system",
    summary="Workers, leases, queues, cache, versions",
    operation_id="getSystem",
    dependencies=[Depends(require(METRICS))],
)
async def get_system(state: StateOf, tenant: TenantOf) -> Response:
    """As it is now. Jobs of others are shown without their ids."""
    return json_reply(await to_thread.run_sync(system_document, state, tenant))


@router.get(
    "/v1/models",
    summary="Models below this server's roots",
    operation_id="listModels",
    dependencies=[Depends(require(READ))],
)
async def list_models(state: StateOf) -> Response:
    """Folders with a config.json, as references for jobs. Hub models are not listed."""
    return json_reply(await to_thread.run_sync(models_document, state.settings.model_roots))
