"""GET /v1/solvers, /v1/metrics, /v1/formats, /v1/recipes, /v1/engines.

What this server knows, with limits and availability.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from anyio import to_thread
from fastapi import APIRouter, Request
from starlette.responses import Response

from bitwright.core.formats import GRAMMAR, listed_formats
from service.replies import tagged_json

router = APIRouter(tags=["catalogs"])


@cache
def solvers() -> dict[str, Any]:
    from solvers.catalog import SOLVERS

    return {"solvers": [entry.describe() for entry in SOLVERS]}


@cache
def metrics() -> dict[str, Any]:
    from sensitivity.catalog import METRICS

    return {"metrics": [entry.describe() for entry in METRICS]}


@cache
def formats() -> dict[str, Any]:
    return {"grammar": GRAMMAR, "formats": [found.describe() for found in listed_formats()]}


@cache
def recipes() -> dict[str, Any]:
    from bitwright.recipes import shipped_recipes

    return {"recipes": [recipe.model_dump(mode="json", exclude_none=True) for recipe in shipped_recipes().values()]}


@cache
def engines() -> dict[str, Any]:
    from bitwright.engines import EXPORTERS, shipped_profiles
    from quantizers.containers.catalog import CONTAINERS

    profiles = [profile.model_dump(mode="json", exclude_none=True) for profile in shipped_profiles().values()]
    return {
        "engines": profiles,
        "exporters": [entry.describe() for entry in EXPORTERS],
        "containers": [entry.describe() for entry in CONTAINERS],
    }


async def _reply(request: Request, read: Callable[[], dict[str, Any]]) -> Response:
    return tagged_json(request, await to_thread.run_sync(read))


@router.get("/v1/solvers", summary="Solvers and what each takes", operation_id="listSolvers")
async def list_solvers(request: Request) -> Response:
    return await _reply(request, solvers)


@router.get("/v1/metrics", summary="Sensitivity metrics", operation_id="listMetrics")
async def list_metrics(request: Request) -> Response:
    return await _reply(request, metrics)


@router.get("/v1/formats", summary="Weight formats and their true bits per weight", operation_id="listFormats")
async def list_formats(request: Request) -> Response:
    return await _reply(request, formats)


@router.get("/v1/recipes", summary="Published methods as data", operation_id="listRecipes")
async def list_recipes(request: Request) -> Response:
    return await _reply(request, recipes)


@router.get("/v1/engines", summary="Inference engines and export targets", operation_id="listEngines")
async def list_engines(request: Request) -> Response:
    return await _reply(request, engines)
