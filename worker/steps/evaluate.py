"""Job `evaluate`: measured quality of a plan or of a checkpoint against the original model."""

from __future__ import annotations

from typing import Any

from bitwright.core.errors import InvalidInput
from bitwright.core.plan import plan_from_json
from bitwright.core.requests import EvaluateRequest
from sensitivity import calibration as calibrations
from sensitivity import evaluate
from worker.steps.context import Context
from worker.steps.execute import match
from worker.steps.finite import require_finite
from worker.steps.texts import locate_text


def run(request: EvaluateRequest, context: Context) -> dict[str, Any]:
    if request.plan is not None and request.checkpoint is not None:
        raise InvalidInput("name a plan or a checkpoint, not both")
    source, inventory = context.open(request.model)
    require_finite(source, inventory, context)
    data = calibrations.load_data(
        locate_text(request.text, context), source, inventory, tokens_wanted=request.tokens, seed=request.seed
    )
    if request.checkpoint is not None:
        quality = evaluate.measure_checkpoint(
            source, inventory, context.local_folder(request.checkpoint), data, progress=context.progress
        )
        return {"quality": quality.to_json(), "of": "checkpoint"}
    variants: dict[str, list[str] | None] = {"original": None}
    if request.plan is not None:
        plan = plan_from_json(request.plan)
        inventory, names = match(plan, inventory)
        variants = {"plan": names}
    quantizer = "rtn" if request.plan is None else str(plan.provenance.get("quantizer", "rtn"))
    measured = evaluate.measure(source, inventory, variants, data, quantizer=quantizer, progress=context.progress)
    name = next(iter(variants))
    return {"quality": measured[name].to_json(), "of": name}
