"""Job `evaluate`: measured quality of a plan or of a checkpoint against the original model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bitwright.core.canonical import digest_json
from bitwright.core.errors import InvalidInput
from bitwright.core.inventory import Inventory
from bitwright.core.plan import plan_from_json
from bitwright.core.requests import EvaluateRequest
from bitwright.models import ModelSource
from quantizers.catalog import QUANTIZERS
from sensitivity import calibration as calibrations
from sensitivity import evaluate
from sensitivity.base import NUMERICS
from sensitivity.data import Data
from sensitivity.partial import Partial
from sensitivity.quality import Quality
from worker.steps.context import Context
from worker.steps.execute import match
from worker.steps.finite import require_finite
from worker.steps.partial import kept_in
from worker.steps.quantizing import Maker, planned_quantizer
from worker.steps.texts import locate_text


def run(request: EvaluateRequest, context: Context) -> dict[str, Any]:
    if request.plan is not None and request.checkpoint is not None:
        raise InvalidInput("name a plan or a checkpoint, not both")
    source, inventory = context.open(request.model)
    require_finite(source, inventory, context)
    data = calibrations.load_data(
        locate_text(request.text, context), source, inventory, tokens_wanted=request.tokens, seed=request.seed
    )
    folder = None if request.checkpoint is None else context.local_folder(request.checkpoint)
    with kept_in(context.blobs.path("partial", _key(request, inventory, data, folder))) as partial:
        of, quality = _measure(request, source, inventory, data, folder, context, partial)
    return {"quality": quality.to_json(), "of": of}


def _key(request: EvaluateRequest, inventory: Inventory, data: Data, folder: Path | None) -> str:
    """Digest of all that can change the measurement; of a checkpoint, whatever a rewriting of its files changes."""
    files = [] if folder is None else [(path, path.stat()) for path in sorted(folder.iterdir())]
    return digest_json({
        "evaluate": request.model_dump(mode="json"), "model": inventory.digest, "data": data.digest,
        "numerics": NUMERICS, "files": [[path.name, stat.st_size, stat.st_mtime_ns] for path, stat in files],
    })  # fmt: skip


def _measure(
    request: EvaluateRequest,
    source: ModelSource,
    inventory: Inventory,
    data: Data,
    folder: Path | None,
    context: Context,
    partial: Partial,
) -> tuple[str, Quality]:
    if folder is not None:
        return "checkpoint", evaluate.measure_checkpoint(
            source, inventory, folder, data, progress=context.progress, partial=partial
        )
    variants: dict[str, list[str] | None] = {"original": None}
    maker = Maker(QUANTIZERS.load("rtn"))
    if request.plan is not None:
        plan = plan_from_json(request.plan)
        maker = planned_quantizer(plan, request.calibration, source, inventory, context)
        inventory, names = match(plan, inventory)
        variants = {"plan": names}
    measured = evaluate.measure(
        source, inventory, variants, data, quantizer=maker, progress=context.progress, partial=partial
    )
    return next(iter(measured.items()))
