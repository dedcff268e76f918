"""Batches: models x budgets in one request, one status."""

from __future__ import annotations

import json
import uuid
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Header, Query, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.responses import Response

from bitwright.core.errors import BitwrightError, InvalidInput
from bitwright.core.requests import invalid_members
from bitwright.jobs.batches import Batch
from bitwright.jobs.create import NewJob
from service.accepting import accept
from service.auth import Principal, PrincipalOf, TenantOf
from service.body import read_json
from service.listing import Filters, list_page
from service.preferences import idempotency_key
from service.replies import json_reply
from service.state import State, StateOf
from service.tracing import traceparent_of

router = APIRouter(tags=["batches"])
#: Names a batch by the tenant's idempotency key (RFC 9562 section 5.5: a name-based identifier).
_NAMESPACE = uuid.UUID("6a1f0d0e-6a53-4a0b-9a55-8f2c1f4e7d21")


class BatchBody(BaseModel):
    """Every model with every budget: `job` holds the other members of each job."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    models: tuple[str, ...] = Field(min_length=1, max_length=1000, description="model references")
    budgets: tuple[str, ...] = Field(default=(), max_length=1000, description="budgets of `plan` jobs")
    job: dict[str, Any] = Field(default_factory=dict, description="members that all jobs share; kind: plan by default")


@router.post("/v1/batches", summary="Create many jobs", operation_id="createBatch", status_code=202)
async def create_batch(
    request: Request,
    state: StateOf,
    who: PrincipalOf,
    validate_only: Annotated[bool, Query(description="check every job and do nothing")] = False,
    key: Annotated[str | None, Header(alias="Idempotency-Key", description="same key: same batch")] = None,
) -> Response:
    """All of them are accepted, or none: an error names the job and the member that is wrong."""
    del key
    tenant = who.tenant
    name = idempotency_key(request.headers.get("idempotency-key"))
    body = _parse(await read_json(request))
    trace = traceparent_of(request)
    # As JSON, so that no tenant's name and key together spell another tenant's.
    batch_id = str(uuid.uuid5(_NAMESPACE, json.dumps([tenant, name])) if name else uuid.uuid4())
    news = await to_thread.run_sync(lambda: _jobs(state, body, who, batch_id, trace))
    if validate_only:
        return json_reply({"valid": True, "jobs": [dict(new.request) for new in news]})
    plain = body.model_dump(mode="json")
    limits = state.settings.tenant_queued_jobs, state.settings.tenant_writing_jobs
    batch = await to_thread.run_sync(lambda: state.store.create_batch(batch_id, tenant, plain, news, *limits))
    if batch.request != plain:
        raise InvalidInput("this idempotency key was used with another batch", hint="use a new key for a new batch")
    return json_reply(_document(batch), status=202, headers={"Location": f"/v1/batches/{batch.id}"})


@router.get("/v1/batches/{batch_id}", summary="Read a batch", operation_id="getBatch")
async def get_batch(batch_id: str, state: StateOf, tenant: TenantOf) -> Response:
    """One state and the number of jobs in each; `links.jobs` lists them."""
    return json_reply(_document(await to_thread.run_sync(state.store.get_batch, batch_id, tenant)))


@router.get("/v1/batches/{batch_id}/jobs", summary="List a batch's jobs", operation_id="listBatchJobs")
async def list_batch_jobs(
    batch_id: str,
    state: StateOf,
    tenant: TenantOf,
    page_size: Annotated[int, Query(ge=0)] = 0,
    page_token: Annotated[str, Query(max_length=2048)] = "",
) -> Response:
    await to_thread.run_sync(state.store.get_batch, batch_id, tenant)
    filters = Filters(tenant, (), (), batch_id)
    return json_reply(await to_thread.run_sync(list_page, state, filters, page_size, page_token))


@router.post("/v1/batches/{batch_id}:cancel", summary="Cancel a batch", operation_id="cancelBatch")
async def cancel_batch(batch_id: str, state: StateOf, tenant: TenantOf) -> Response:
    """Cancels every job that has not ended. Idempotent."""
    return json_reply(_document(await to_thread.run_sync(state.store.cancel_batch, batch_id, tenant)))


def _document(batch: Batch) -> dict[str, Any]:
    here = f"/v1/batches/{batch.id}"
    return {**batch.to_json(), "links": {"self": here, "jobs": f"{here}/jobs", "cancel": f"{here}:cancel"}}


def _parse(data: Any) -> BatchBody:
    try:
        return BatchBody.model_validate(data)
    except ValidationError as error:
        raise invalid_members(error) from error


def _jobs(state: State, body: BatchBody, who: Principal, batch_id: str, trace: str | None) -> list[NewJob]:
    """Models x budgets, models first. Raises the first job's error, with its place in the batch."""
    budgets: tuple[str | None, ...] = body.budgets or (None,)
    pairs = [(model, budget) for model in body.models for budget in budgets]
    if len(pairs) > state.settings.batch_jobs:
        raise InvalidInput(
            "the batch has too many jobs", expected=f"at most {state.settings.batch_jobs}", got=str(len(pairs)),
            hint="send several batches, or ask the operator to raise BITWRIGHT_BATCH_JOBS",
        )  # fmt: skip
    news = []
    for model, budget in pairs:
        members = {"kind": "plan", **body.job, "model": model, **({"budget": budget} if budget is not None else {})}
        try:
            accepted = accept(members, state, who)
        except BitwrightError as error:
            error.extra["job"] = {"model": model, "budget": budget}
            raise
        news.append(accepted.job(who.tenant, batch_id=batch_id, traceparent=trace))
    return news
