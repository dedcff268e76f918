"""Job `evaluate`: measured quality of a plan or of a checkpoint against the original model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitwright.core.canonical import digest_json
from bitwright.core.errors import InvalidInput
from bitwright.core.inventory import Inventory
from bitwright.core.plan import plan_from_json
from bitwright.core.recipe import Pruning
from bitwright.core.requests import EvaluateRequest
from bitwright.models import ModelSource
from quantizers.catalog import QUANTIZERS
from sensitivity import calibration as calibrations
from sensitivity import evaluate
from sensitivity.base import numerics
from sensitivity.data import Data
from sensitivity.partial import FORGETFUL, Partial
from sensitivity.quality import Quality
from sensitivity.runner import Runner
from worker.steps.context import Context
from worker.steps.execute import match
from worker.steps.finite import require_finite
from worker.steps.partial import kept_in
from worker.steps.quantizing import Maker, planned_quantizer
from worker.steps.texts import locate_text

#: Tokens over which the median ratio of routing weights is taken.
THRESHOLD_TOKENS = 8192


def run(request: EvaluateRequest, context: Context) -> dict[str, Any]:
    if request.plan is not None and request.checkpoint is not None:
        raise InvalidInput("name a plan or a checkpoint, not both")
    source, inventory = context.open(request.model)
    require_finite(source, inventory, context)
    data = calibrations.load_data(
        locate_text(request.text, context), source, inventory, tokens_wanted=request.tokens, seed=request.seed
    )
    folder = None if request.checkpoint is None else context.local_folder(request.checkpoint)
    measuring = _Measuring(request, source, inventory, data, folder, context)
    with kept_in(context.blobs.path("partial", _key(request, inventory, data, folder))) as partial:
        of, quality = measuring.measure(None, partial)
    if request.prune_experts is None:
        return {"quality": quality.to_json(), "of": of}
    return {"of": of, **pruned(request, measuring, quality, source, inventory, context)}


def _key(request: EvaluateRequest, inventory: Inventory, data: Data, folder: Path | None) -> str:
    """Digest of all that can change the measurement; of a checkpoint, whatever a rewriting of its files changes."""
    files = [] if folder is None else [(path, path.stat()) for path in sorted(folder.iterdir())]
    return digest_json({
        "evaluate": request.model_dump(mode="json"), "model": inventory.digest, "data": data.digest,
        "numerics": numerics(), "files": [[path.name, stat.st_size, stat.st_mtime_ns] for path, stat in files],
    })  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Measuring:
    """What is measured, on what; `measure` names it and says how it did."""

    request: EvaluateRequest
    source: ModelSource
    inventory: Inventory
    data: Data
    folder: Path | None
    context: Context

    def measure(self, runner: Runner | None, partial: Partial = FORGETFUL) -> tuple[str, Quality]:
        told: Any = {"progress": self.context.progress, "partial": partial, "runner": runner}
        if self.folder is not None:
            return "checkpoint", evaluate.measure_checkpoint(
                self.source, self.inventory, self.folder, self.data, **told
            )
        variants: dict[str, list[str] | None] = {"original": None}
        maker, inventory = Maker(QUANTIZERS.load("rtn")), self.inventory
        if self.request.plan is not None:
            plan = plan_from_json(self.request.plan)
            maker = planned_quantizer(plan, self.request.calibration, self.source, inventory, self.context)
            inventory, names = match(plan, inventory)
            variants = {"plan": names}
        measured = evaluate.measure(self.source, inventory, variants, self.data, quantizer=maker, **told)
        return next(iter(measured.items()))


def pruned(
    request: EvaluateRequest, measuring: _Measuring, whole: Quality, source: ModelSource, inventory: Inventory,
    context: Context,
) -> dict[str, Any]:  # fmt: skip
    """The same with experts pruned online: its quality, and under `pruning` what that dropped and what it cost.

    Members that the request leaves out are those of the plan's recipe. Raises Unsupported for models without experts.
    """
    from sensitivity.pruning import pruning_runner
    from sensitivity.runner import load_runner

    assert request.prune_experts is not None
    recipe = {} if request.plan is None else plan_from_json(request.plan).provenance.get("pruning", {})
    rule = Pruning(**{**recipe, **request.prune_experts.model_dump(exclude_unset=True)})
    calibration = calibrations.load(
        locate_text(request.calibration, context), source, inventory, scoring_tokens=THRESHOLD_TOKENS,
        confirming_tokens=THRESHOLD_TOKENS, seed=request.seed,
    )  # fmt: skip
    runner = pruning_runner(load_runner(source, inventory), rule, calibration.scoring)
    _, quality = measuring.measure(runner)
    facts = {
        **rule.model_dump(), **runner.counts.to_json(), "thresholds": dict(runner.thresholds),
        "kl_without": whole.kl, "stderr_without": whole.stderr, "cost": quality.kl - whole.kl,
        "calibration": calibration.description, "tokens": runner.counts.tokens,
    }  # fmt: skip
    return {"quality": quality.to_json(), "pruning": facts}
