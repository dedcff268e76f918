"""Job `inspect`: units, shapes, ties, bytes and coverage, from headers alone."""

from __future__ import annotations

from typing import Any

from bitwright.core.requests import InspectRequest
from worker.steps.context import Context


def run(request: InspectRequest, context: Context) -> dict[str, Any]:
    _, inventory = context.open(request.model)
    return {"inventory": inventory.to_json()}
