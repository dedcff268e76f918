"""Webhooks: what was sent, sending it again, and the secrets that receivers verify it with."""

from __future__ import annotations

from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Query
from starlette.responses import Response

from bitwright.core.catalog import unknown_name
from bitwright.core.errors import InvalidInput
from bitwright.jobs import deliveries
from bitwright.jobs.signing import Signer
from service.auth import TenantOf
from service.replies import json_reply
from service.state import State, StateOf

router = APIRouter(tags=["webhooks"])
#: Larger page sizes are cut to this.
MAX_PAGE = 1000


@router.get("/v1/webhooks", summary="List webhook deliveries, newest first", operation_id="listWebhooks")
async def list_webhooks(
    state: StateOf,
    tenant: TenantOf,
    delivery_state: Annotated[str | None, Query(alias="state", description=", ".join(deliveries.STATES))] = None,
    job: Annotated[str | None, Query(max_length=64, description="of this job only")] = None,
    page_size: Annotated[int, Query(ge=0)] = 0,
    page_token: Annotated[str, Query(max_length=2048)] = "",
) -> Response:
    """An empty `next_page_token` ends the walk."""
    if delivery_state is not None and delivery_state not in deliveries.STATES:
        raise unknown_name("delivery state", delivery_state[:80], deliveries.STATES)
    return json_reply(await to_thread.run_sync(_page, state, tenant, delivery_state, job, page_size, page_token))


@router.get("/v1/webhooks/{delivery_id}", summary="Read a webhook delivery", operation_id="getWebhook")
async def get_webhook(delivery_id: str, state: StateOf, tenant: TenantOf) -> Response:
    return json_reply((await to_thread.run_sync(state.store.get_delivery, delivery_id, tenant)).to_json())


@router.post("/v1/webhooks/{delivery_id}:resend", summary="Send a webhook again", operation_id="resendWebhook")
async def resend_webhook(delivery_id: str, state: StateOf, tenant: TenantOf) -> Response:
    """Now, under the same id, whatever became of it; an address that was disabled gets another chance."""
    return json_reply((await to_thread.run_sync(state.store.resend_delivery, delivery_id, tenant)).to_json())


@router.post("/v1/webhooks:secrets", summary="Secrets that sign your webhooks", operation_id="webhookSecrets")
async def webhook_secrets(state: StateOf, tenant: TenantOf) -> Response:
    """Newest first; two while they are rotated. A POST, so that no cache or history keeps them."""
    found = await to_thread.run_sync(lambda: Signer(state.settings.state_dir).secrets_of(tenant))
    return json_reply({"secrets": found})


def _page(state: State, tenant: str, wanted: str | None, job: str | None, page_size: int, token: str) -> dict[str, Any]:
    size = min(page_size or state.settings.page_size, MAX_PAGE)
    filters = {"tenant": tenant, "state": wanted, "job": job}
    walk = state.sealer.open(token) if token else None
    if walk is not None and walk["filters"] != filters:
        raise InvalidInput(
            "the filters changed in the middle of a walk",
            hint="start again without page_token",
            errors=[{"parameter": "page_token", "in": "query", "message": "other filters"}],
        )
    found = state.store.deliveries(
        tenant,
        states=(wanted,) if wanted else (),
        job_id=job,
        after=(float(walk["at"]), str(walk["id"])) if walk else None,
        limit=size + 1,
    )
    following = ""
    if len(found) > size:
        last = found[size - 1]
        following = state.sealer.seal({"at": last.created_at, "id": last.id, "filters": filters})
    return {"webhooks": [one.to_json() for one in found[:size]], "next_page_token": following}
