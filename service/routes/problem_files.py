"""/v1/problems: problem files, checked once and stored under their digests, for solving at many limits."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from anyio import to_thread
from fastapi import APIRouter, Request
from starlette.responses import Response

from service.auth import TenantOf
from service.body import require_media
from service.replies import json_reply
from service.routes.solve import NPZ_MEDIA
from service.routes.texts import NameOf
from service.state import State, StateOf

router = APIRouter(tags=["solve"])


@router.post("/v1/problems", summary="Store a problem file", operation_id="storeProblem", status_code=201)
async def store_problem(request: Request, state: StateOf, tenant: TenantOf, name: NameOf = "") -> Response:
    """An .npz without pickles.

    It is read in a solver process before it is kept; the digest goes into `problem` of POST /v1/solve and /v1/frontier.
    """
    require_media(request, *NPZ_MEDIA)
    body = await request.body()
    keep = partial(_keep, state, tenant, body, name)
    return json_reply(await to_thread.run_sync(keep, limiter=state.solve_limiter), status=201)


@router.get("/v1/problems", summary="Your stored problem files", operation_id="listProblems")
async def list_problems(state: StateOf, tenant: TenantOf) -> Response:
    """Newest first."""
    return json_reply({"problems": await to_thread.run_sync(state.uploads.all, tenant, "problems")})


@router.delete(
    "/v1/problems/{digest}", summary="Delete a stored problem file", operation_id="deleteProblem", status_code=204
)
async def delete_problem(digest: str, state: StateOf, tenant: TenantOf) -> Response:
    """Another tenant that stored the same file keeps it."""
    await to_thread.run_sync(state.uploads.drop, tenant, "problems", digest)
    return Response(status_code=204)


def _keep(state: State, tenant: str, body: bytes, name: str) -> dict[str, Any]:
    found = json.loads(state.pool.run("check", body, encoding="npz"))
    return state.uploads.keep(tenant, "problems", body, name, found)
