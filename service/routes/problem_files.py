"""POST /v1/problems: problem files, checked once and stored under their digest, for solving at many limits."""

from __future__ import annotations

import json
from typing import Any

from anyio import to_thread
from fastapi import APIRouter, Request
from starlette.responses import Response

from service.body import require_media
from service.replies import json_reply
from service.routes.solve import NPZ_MEDIA
from service.state import State, StateOf

router = APIRouter(tags=["solve"])


@router.post("/v1/problems", summary="Store a problem file", operation_id="storeProblem", status_code=201)
async def store_problem(request: Request, state: StateOf) -> Response:
    """An .npz without pickles.

    It is read in a solver process before it is kept; the digest goes into `problem` of POST /v1/solve and /v1/frontier.
    """
    require_media(request, *NPZ_MEDIA)
    body = await request.body()
    return json_reply(await to_thread.run_sync(_keep, state, body, limiter=state.solve_limiter), status=201)


def _keep(state: State, body: bytes) -> dict[str, Any]:
    found = json.loads(state.pool.run("check", body, encoding="npz"))
    return {"digest": state.blobs.put("problems", body), "bytes": len(body), **found}
