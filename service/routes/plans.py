"""Plans and sensitivity tables by digest, exports, and the independent check."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

import bitwright
from bitwright.core.errors import NotFound
from bitwright.core.plan import Plan, plan_from_json
from bitwright.core.table import load_table
from bitwright.engines.answer import answer
from bitwright.engines.best import BEST_SECONDS
from bitwright.engines.columns import MEDIA as COLUMNS
from bitwright.engines.columns import columns_key
from bitwright.models.planned import inventory_of
from service.auth import TenantOf
from service.body import read_json
from service.documents import table_json, verify_document
from service.menus import columns_of, menus_json, plan_menus_of
from service.owning import own_plan, own_plan_file, own_table
from service.replies import IMMUTABLE, REVALIDATE, json_reply, raw_reply, tagged_headers
from service.state import State, StateOf

router = APIRouter(tags=["plans"])
NPZ = "application/octet-stream"


@router.post("/v1/plans:verify", summary="Verify a plan or a solution", operation_id="verifyPlan")
async def verify_plan(request: Request, state: StateOf, tenant: TenantOf) -> Response:
    """Recompute bytes, loss, feasibility, bound and gap with none of the solver's code.

    `ok: false` is an answer (200).
    """
    data = await read_json(request)
    verdict = await to_thread.run_sync(verify_document, data, partial(own_table, state, tenant))
    return json_reply(verdict.to_json())


@router.get("/v1/plans/{digest}", summary="A plan", operation_id="getPlan")
async def get_plan(request: Request, digest: str, state: StateOf, tenant: TenantOf) -> Response:
    """The plan document under this digest; cacheable for ever."""
    path = await to_thread.run_sync(own_plan_file, state, tenant, digest)
    headers = tagged_headers(request, digest, IMMUTABLE)
    return raw_reply(await to_thread.run_sync(path.read_bytes), headers=headers)


@router.get("/v1/plans/{digest}/export/{target}", summary="A plan in another tool's syntax", operation_id="exportPlan")
async def export_plan(request: Request, digest: str, target: str, state: StateOf, tenant: TenantOf) -> Response:
    """Names exact and anchored. 422 `unknown-name` for an unknown target, `unsupported` for what it cannot say."""
    plan = await to_thread.run_sync(own_plan, state, tenant, digest)
    text = await to_thread.run_sync(_export, plan, target)
    headers = tagged_headers(request, f"{digest}-{target}", "private, no-cache")
    return Response(text, headers=headers, media_type="text/plain; charset=utf-8")


@router.get("/v1/plans/{digest}/engines", summary="Which engines load a plan", operation_id="getPlanMenus")
async def get_plan_menus(request: Request, digest: str, state: StateOf, tenant: TenantOf) -> Response:
    """Preflight against every engine: as for a sensitivity table, over the plan's own units and formats."""
    path = await to_thread.run_sync(own_plan_file, state, tenant, digest)
    headers = tagged_headers(request, columns_key(digest), REVALIDATE)
    return raw_reply(await to_thread.run_sync(plan_menus_of, state.blobs, path, digest), headers=headers)


Engine = Annotated[str, Query(max_length=64, description="NAME or NAME@VERSION of GET /v1/engines")]
Device = Annotated[str | None, Query(max_length=64, description="cpu, metal, cuda or cuda:8.0; left out: any")]


@router.get("/v1/plans/{digest}/preflight", summary="Does an engine load a plan?", operation_id="preflightPlan")
async def preflight_plan(
    digest: str, state: StateOf, tenant: TenantOf, engine: Engine, device: Device = None
) -> Response:
    """Yes, or every reason why not; the nearest plan that would load, the best of the same bytes, and what they cost.

    As `bitwright preflight`: by the plan's own sensitivity table, where this server has it.
    """
    plan = await to_thread.run_sync(own_plan, state, tenant, digest)
    found = await to_thread.run_sync(
        lambda: _preflight(state, tenant, plan, engine, device, _table_of(plan), forgive=True)
    )
    return json_reply(found)


@router.post(
    "/v1/plans:preflight", summary="Does an engine load a plan of your own?", operation_id="preflightGivenPlan"
)
async def preflight_given_plan(
    request: Request,
    state: StateOf,
    tenant: TenantOf,
    engine: Engine,
    device: Device = None,
    table: Annotated[
        str | None,
        Query(max_length=80, description="digest of a table that prices the answer; default: the plan's own"),
    ] = None,
) -> Response:
    """Body: the plan document. `loads: false` is an answer (200). Nothing is stored."""
    data = await read_json(request)

    def work() -> dict[str, Any]:
        plan = plan_from_json(data)
        return _preflight(state, tenant, plan, engine, device, table or _table_of(plan), forgive=table is None)

    return json_reply(await to_thread.run_sync(work))


def _table_of(plan: Plan) -> str | None:
    """Digest of the table that the plan says it was made from."""
    return str(plan.provenance["table"]) if plan.provenance.get("table") else None


def _preflight(
    state: State, tenant: str, plan: Plan, engine: str, device: str | None, table: str | None, *, forgive: bool
) -> dict[str, Any]:
    """forgive: a table that is not here leaves the nearest plan without its price, instead of NotFound."""
    try:
        found = None if table is None else load_table(own_table(state, tenant, table))
    except NotFound:
        if not forgive:
            raise
        found = None
    settings = state.settings  # a larger table is priced, but not solved while somebody waits
    fits = found is not None and found.loss.shape[0] <= settings.max_solve_units
    solve = partial(state.pool.solve, seconds=BEST_SECONDS) if fits else None
    return answer(plan, inventory_of(plan), engine, device=device, table=found, solve=solve).to_json()


@router.post("/v1/plans:export", summary="A plan of your own in another tool's syntax", operation_id="exportGivenPlan")
async def export_given_plan(request: Request, target: Annotated[str, Query(max_length=64)]) -> Response:
    """Body: the plan document. Nothing is stored."""
    data = await read_json(request)
    text = await to_thread.run_sync(lambda: _export(plan_from_json(data), target))
    return Response(text, headers={"Cache-Control": "no-store"}, media_type="text/plain; charset=utf-8")


def _export(plan: Plan, target: str) -> str:
    from bitwright.engines import export_plan

    return export_plan(plan, target)


@router.get("/v1/sensitivities/{digest}", summary="A sensitivity table", operation_id="getSensitivities")
async def get_sensitivities(request: Request, digest: str, state: StateOf, tenant: TenantOf) -> Response:
    """Losses, standard errors and exact bytes of every unit in every format; null marks a forbidden or unknown cell.

    `Accept: application/octet-stream` gives the .npz file that `bitwright solve` and `frontier` read;
    `Accept: application/vnd.bitwright.columns` the table by units with what each engine loads of it, as flat arrays
    (docs/service.md).
    """
    path = await to_thread.run_sync(own_table, state, tenant, digest)
    accepted = request.headers.get("accept", "")
    if COLUMNS in accepted:
        headers = tagged_headers(request, columns_key(digest), REVALIDATE)
        body = await to_thread.run_sync(columns_of, state.blobs, path, digest)
        return Response(body, headers={**headers, "Vary": "Accept"}, media_type=COLUMNS)
    npz = NPZ in accepted
    headers = {**tagged_headers(request, f"{digest}{'.npz' * npz}", IMMUTABLE), "Vary": "Accept"}
    if npz:
        return Response(await to_thread.run_sync(path.read_bytes), headers=headers, media_type=NPZ)
    return raw_reply(await to_thread.run_sync(table_json, path, digest), headers=headers)


@router.get(
    "/v1/sensitivities/{digest}/engines", summary="What each engine loads of a table's units", operation_id="getMenus"
)
async def get_menus(request: Request, digest: str, state: StateOf, tenant: TenantOf) -> Response:
    """Preflight for every plan of the table at once: units by class; for each class, format and engine null or why not.

    A plan loads when none of its units is refused and units that the engine ties share a format.
    """
    path = await to_thread.run_sync(own_table, state, tenant, digest)
    headers = tagged_headers(request, f"{digest}-{bitwright.__version__}", "private, no-cache")
    return raw_reply(await to_thread.run_sync(menus_json, path, digest), headers=headers)
