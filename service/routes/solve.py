"""POST /v1/solve and POST /v1/frontier: synchronous, in warm solver processes."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from service.auth import TenantOf
from service.body import require_media
from service.owning import owns
from service.replies import raw_reply
from service.solve_requests import MIN_SECONDS
from service.state import State, StateOf

router = APIRouter(tags=["solve"])
NPZ_MEDIA = ("application/octet-stream", "application/x-npz")


async def _run(state: State, tenant: str, operation: str, request: Request, options: dict[str, Any]) -> Response:
    media = require_media(request, "application/json", *NPZ_MEDIA)
    body = await request.body()
    encoding = "npz" if media in NPZ_MEDIA else "json"

    def work() -> bytes:
        named = options if encoding == "npz" else {}
        return state.pool.run(operation, body, encoding=encoding, options=named, owns=partial(owns, state, tenant))

    return raw_reply(await to_thread.run_sync(work, limiter=state.solve_limiter), headers={"Cache-Control": "no-store"})


@router.post("/v1/solve", summary="Solve a problem now", operation_id="solve")
async def solve(
    request: Request,
    state: StateOf,
    tenant: TenantOf,
    solver: Annotated[str, Query(max_length=64, description="for .npz bodies")] = "auto",
    time_limit: Annotated[
        float, Query(ge=MIN_SECONDS, le=300, allow_inf_nan=False, description="seconds; for .npz bodies")
    ] = 10.0,
    seed: Annotated[int, Query(ge=0, lt=2**31, description="for .npz bodies")] = 0,
) -> Response:
    """The certified solution of one problem (JSON, or the .npz of `bitwright solve`).

    Infeasible is an answer, not an error.
    """
    return await _run(state, tenant, "solve", request, {"solver": solver, "time_limit": time_limit, "seed": seed})


@router.post("/v1/frontier", summary="Every budget at once", operation_id="frontier")
async def frontier(
    request: Request,
    state: StateOf,
    tenant: TenantOf,
    limit: Annotated[str | None, Query(max_length=64, description="for .npz bodies")] = None,
    points: Annotated[int, Query(ge=2, le=10_000, description="for .npz bodies")] = 1000,
) -> Response:
    """Best loss for every value of one limit, with the uniform plans and the knee.

    `at` also gives the plans themselves.
    """
    return await _run(state, tenant, "frontier", request, {"limit": limit, "points": points})
