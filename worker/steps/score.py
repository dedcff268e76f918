"""Job `sensitivity`: the table of a model, from the cache when the same question was asked before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from bitwright.core.canonical import digest_json
from bitwright.core.mixed_format import is_finer
from bitwright.core.requests import Scoring, SensitivityRequest
from bitwright.core.table import SensitivityTable, load_table
from bitwright.engines.columns import columns_key, save_columns
from sensitivity.base import numerics
from sensitivity.catalog import METRICS
from sensitivity.data import Calibration
from sensitivity.partial import FORGETFUL
from sensitivity.share import ALONE
from worker.steps.columns import assemble, by_column, keep, known
from worker.steps.context import Context
from worker.steps.finite import require_finite
from worker.steps.menu import Menu
from worker.steps.partial import kept_in
from worker.steps.questions import why_new
from worker.steps.score_parts import score_in_parts, share_pieces
from worker.steps.study import Study, compute, open_study


def run(request: SensitivityRequest, context: Context) -> dict[str, Any]:
    study = open_study(request, context)
    table = score(study)
    return {"table_digest": publish(table, context), "metric": table.metric, "warnings": list(study.menu.warnings)}


def score(study: Study[Scoring], target: float | None = None) -> SensitivityTable:
    """The table; content-addressed by everything that can change a cell, so a new budget or engine never rescores.

    target: stored bits a weight of the plan, asked for by metrics that look at one target.
    """
    request, menu, inventory, context = study.request, study.menu, study.inventory, study.context
    question = {
        "model": inventory.digest,
        "units": [unit.name for unit in inventory.units],
        "metric": menu.metric,
        "options": dict(menu.recipe.metric_options),
        "samples": request.samples,
        **({"granularity": menu.granularity} if is_finer(menu.granularity) else {}),
        "quantizer": study.maker.key,
        "calibration": _scored_digest(menu, study.calibration),
        "tokens": request.calibration_tokens,
        "seed": request.seed,
        "numerics": numerics(),
        **({"target": target} if METRICS.get(menu.metric).traits.get("target") else {}),
    }
    require_finite(study.source, inventory, context)

    def build(path: Path) -> None:
        asked, missing = menu, list(menu.formats)
        if by_column(menu):
            here = known(question, menu.formats, context)
            missing = [name for name in menu.formats if name not in here]
            asked = replace(menu, formats=tuple(missing))
            if here and missing:
                words = f"{len(here)} of {len(menu.formats)} formats were scored before; new: {', '.join(missing)}"
                context.progress("score", 0.0, words)
        if len(missing) == len(menu.formats):
            told = question if by_column(menu) else {**question, "formats": missing}
            context.progress("score", 0.0, why_new(inventory.ref, told, context))
        if missing:
            ours = request.model_copy(update={"formats": tuple(missing)}) if missing != list(menu.formats) else request
            table = _compute(replace(study, request=ours, menu=asked), question, target)
            if not by_column(menu):
                table.save(path)
                return
            keep(question, table, context)
        assemble(question, menu.formats, context).save(path)

    path = context.blobs.memo("scores", digest_json({**question, "formats": list(menu.formats)}), build)
    context.progress("score", 1.0, f"sensitivities of {len(inventory.units)} units in {len(menu.formats)} formats")
    return load_table(path)


def _compute(study: Study[Scoring], question: Mapping[str, Any], target: float | None) -> SensitivityTable:
    """The table of the menu's formats, in this process or shared out; what is done outlives a kill."""
    key = digest_json({**question, "formats": list(study.menu.formats)})
    with kept_in(study.context.blobs.path("partial", key)) as partial:
        joined, share = score_in_parts(study), share_pieces(study, target)
        return joined or compute(study, share=share, partial=partial if share is ALONE else FORGETFUL, target=target)


def _scored_digest(menu: Menu, calibration: Calibration | None) -> str | None:
    """Digest of what the metric reads: the scoring part only, so that confirming on more tokens never rescores."""
    if calibration is None or METRICS.get(menu.metric).traits["data"] == "none":
        return None
    return calibration.scoring.digest


def publish(table: SensitivityTable, context: Context) -> str:
    """Store the table under its own digest, where `GET /v1/sensitivities/{digest}` finds it, also as columns."""
    digest = table.digest
    context.blobs.memo("tables", digest, table.save)
    context.blobs.memo("columns", columns_key(digest), lambda path: save_columns(table, digest, path))
    return digest
