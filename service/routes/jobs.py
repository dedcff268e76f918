"""Jobs: create, list, read, wait, watch, cancel, result. Long-running operations over plain REST (research/06 A1)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Header, Query, Request
from starlette.background import BackgroundTask
from starlette.responses import Response, StreamingResponse

from bitwright.core.errors import Cancelled, Conflict, PreconditionFailed, ResultNotReady
from bitwright.jobs import states
from bitwright.jobs.create import NewJob
from bitwright.jobs.values import Job
from service.accepting import accept
from service.auth import Principal, TenantOf, admit_again
from service.body import read_json
from service.listing import Filters, list_page
from service.preferences import etag, flag, idempotency_key, matches, preferred_wait
from service.quotas import released
from service.replies import REVALIDATE, json_bytes, json_reply, raw_reply, tagged_headers
from service.state import State, StateOf
from service.streams import HEADERS, job_events, last_event_id
from service.tracing import traceparent_of
from service.views import job_document
from service.waiting import changed, ended

router = APIRouter(tags=["jobs"])
#: Seconds after which a poll is worthwhile: shorter than the shortest job, longer than a round trip.
POLL_SECONDS = 1
Wait = Annotated[
    float,
    Query(ge=0, le=3600, allow_inf_nan=False, description="seconds to wait for a change; cut to the server's longest"),
]


def _job_reply(job: Job, *, status: int, headers: dict[str, str] | None = None) -> Response:
    found = {"ETag": etag(job.version), "Cache-Control": REVALIDATE, **(headers or {})}
    if not job.done:
        found["Retry-After"] = str(POLL_SECONDS)
    return raw_reply(json_bytes(job_document(job)), status=status, headers=found)


@router.post("/v1/jobs", summary="Create a job", operation_id="createJob", status_code=202)
async def create_job(request: Request) -> Response:
    """202 with the job and its address.

    200 when `Prefer: wait` saw it end. Work that fails later is told by the job.
    """
    # The parameters are in `service.openapi_operations` and read here: for FastAPI to take them from the request costs
    # as much as all the rest of this function, and this is the one route that many callers want at once.
    state: State = request.app.state.bitwright
    who: Principal = request.state.principal
    tenant, validate_only = str(request.state.tenant), flag(request, "validate_only")
    name = idempotency_key(request.headers.get("idempotency-key"))
    data = await read_json(request)
    if validate_only:
        accepted = await to_thread.run_sync(accept, data, state, who)
        return json_reply({"valid": True, "request": accepted.request})
    trace = traceparent_of(request)
    anew = "no-cache" in request.headers.get("cache-control", "").lower()

    def prepare() -> NewJob:
        job = accept(data, state, who).job(tenant, key=name, traceparent=trace)
        return replace(job, work_digest=None) if anew else job

    created = await state.acceptor.accept(prepare)
    headers = {"Location": f"/v1/jobs/{created.job.id}", "Bitwright-Cache": "hit" if created.cached else "miss"}
    if created.replayed:
        headers["Idempotency-Replayed"] = "true"
    job, wait = created.job, preferred_wait(request.headers.getlist("prefer"), state.settings.wait_seconds)
    if wait is not None:
        headers["Preference-Applied"] = f"wait={wait:g}"
        with state.quotas.waiting(tenant):
            job = await ended(state, job, wait)
        admit_again(request)
    return _job_reply(job, status=200 if job.done else 202, headers=headers)


@router.get("/v1/jobs", summary="List jobs, newest first", operation_id="listJobs")
async def list_jobs(
    state: StateOf,
    tenant: TenantOf,
    job_state: Annotated[
        list[str] | None, Query(alias="state", description=", ".join(states.STATES), max_length=8)
    ] = None,
    kind: Annotated[list[str] | None, Query(max_length=8)] = None,
    q: Annotated[
        str,
        Query(
            max_length=200,
            description="words that a job must hold in its id, kind, model, budget, engine, metric, recipe, "
            "quantizer, granularity or container, whatever their case. A page looks at 5,000 jobs and may hold fewer "
            "than page_size, even none: `next_page_token` goes on",
        ),
    ] = "",
    page_size: Annotated[int, Query(ge=0, description="0: default; larger than the largest is cut to it")] = 0,
    page_token: Annotated[str, Query(max_length=2048)] = "",
) -> Response:
    """Without requests and results; an empty `next_page_token` ends the walk."""
    filters = Filters.of(tenant, job_state or (), kind or (), q)
    return json_reply(await to_thread.run_sync(list_page, state, filters, page_size, page_token))


@router.post("/v1/jobs/{job_id}:cancel", summary="Cancel a job", operation_id="cancelJob", status_code=202)
async def cancel_job(request: Request, job_id: str, state: StateOf, tenant: TenantOf) -> Response:
    """202 until the worker has confirmed, 200 when the job has ended (also if it had ended before). Idempotent."""
    wanted = request.headers.get("if-match")
    if wanted is not None and not matches(wanted, etag((await _get(state, job_id, tenant)).version)):
        raise PreconditionFailed("the job has changed since you read it", expected=wanted[:80], hint="read it again")
    job = await to_thread.run_sync(state.store.cancel, job_id, tenant)
    return _job_reply(job, status=200 if job.done else 202)


async def _get(state: State, job_id: str, tenant: str) -> Job:
    return await to_thread.run_sync(state.store.get, job_id, tenant)


@router.get("/v1/jobs/{job_id}", summary="Read a job, or wait for its next change", operation_id="getJob")
async def get_job(request: Request, job_id: str, state: StateOf, tenant: TenantOf, wait: Wait = 0) -> Response:
    """With `wait`, answers as soon as the job differs from the If-None-Match version (or from now), or has ended."""
    job = await _get(state, job_id, tenant)
    known = request.headers.get("if-none-match")
    fresh = known is not None and not matches(known, etag(job.version))
    if wait and not job.done and not fresh:
        with state.quotas.waiting(tenant):
            await changed(state, job.id, job.version, min(wait, state.settings.wait_seconds))
        admit_again(request)
        job = await _get(state, job_id, tenant)
    tagged_headers(request, str(job.version), REVALIDATE)
    return _job_reply(job, status=200)


@router.get("/v1/jobs/{job_id}/events", summary="Watch a job", operation_id="watchJob")
async def watch_job(
    request: Request,
    job_id: str,
    state: StateOf,
    tenant: TenantOf,
    last: Annotated[str | None, Header(alias="Last-Event-ID", description="resume after this event")] = None,
) -> Response:
    """Server-sent events, from the first or after Last-Event-ID. 204 when the job has ended and all was seen."""
    seen = last_event_id(last)
    job = await _get(state, job_id, tenant)
    if job.done and seen and not await to_thread.run_sync(state.store.events_after, job_id, seen, 1):
        return Response(status_code=204)
    release = state.quotas.take_stream(tenant)
    stream = job_events(state, job_id, seen, partial(admit_again, request))
    return StreamingResponse(
        released(stream, release),
        headers=dict(HEADERS),
        media_type="text/event-stream",
        background=BackgroundTask(release),
    )


@router.get("/v1/jobs/{job_id}/result", summary="The result of a job", operation_id="getResult")
async def get_result(request: Request, job_id: str, state: StateOf, tenant: TenantOf) -> Response:
    """404 `result-not-ready` with Retry-After until the job has ended; 409 when it failed or was cancelled."""
    job = await _get(state, job_id, tenant)
    if not job.done:
        raise ResultNotReady(
            f"the job is {job.state}", got=f"{100 * job.fraction:.0f} % {job.stage}".strip(), retry_after=POLL_SECONDS
        )
    if job.state == states.CANCELLED:
        raise Cancelled("the job was cancelled and has no result")
    if job.state == states.FAILED:
        error: dict[str, Any] = job.error or {}
        raise Conflict(f"the job failed: {error.get('detail', 'no reason given')}", hint=error.get("hint"), error=error)
    return raw_reply(json_bytes(job.result), headers=tagged_headers(request, str(job.version), REVALIDATE))
