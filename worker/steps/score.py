"""Job `sensitivity`: the table of a model, from the cache when the same question was asked before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from bitwright.core.canonical import digest_json
from bitwright.core.inventory import Inventory
from bitwright.core.mixed_format import is_finer
from bitwright.core.requests import Scoring, SensitivityRequest
from bitwright.core.table import SensitivityTable, load_table
from bitwright.engines.columns import columns_key, save_columns
from bitwright.models import ModelSource
from sensitivity import calibration as calibrations
from sensitivity.base import NUMERICS
from sensitivity.catalog import METRICS
from sensitivity.data import Calibration
from sensitivity.partial import FORGETFUL
from sensitivity.scoring import score as score_units
from sensitivity.share import ALONE
from worker.steps.columns import assemble, by_column, keep, known
from worker.steps.context import Context
from worker.steps.finite import require_finite
from worker.steps.menu import Menu, resolve
from worker.steps.partial import kept_in
from worker.steps.quantizing import Maker, make_quantizer, reads_data
from worker.steps.questions import why_new
from worker.steps.score_parts import score_in_parts, share_batches
from worker.steps.texts import locate_text


def run(request: SensitivityRequest, context: Context) -> dict[str, Any]:
    source, inventory = context.open(request.model)
    menu = resolve(request, inventory)
    calibration = calibrate(request, menu, source, inventory, context)
    maker = make_quantizer(menu.quantizer, source, inventory, calibration, context, menu.quantizer_options)
    table = score(request, menu, source, inventory, calibration, maker, context)
    return {"table_digest": publish(table, context), "metric": table.metric, "warnings": list(menu.warnings)}


def calibrate(
    request: Scoring, menu: Menu, source: ModelSource, inventory: Inventory, context: Context, *, confirming: int = 0
) -> Calibration | None:
    """Calibration data split into scoring and confirming parts; None when nothing needs any."""
    quantizing = reads_data(menu.quantizer) and inventory.task != "unknown"
    if METRICS.get(menu.metric).traits["data"] == "none" and not confirming and not quantizing:
        return None
    context.progress("calibrate", 0.0, "reading calibration data")
    text = locate_text(request.calibration, context)
    calibration = calibrations.load(
        text,
        source,
        inventory,
        scoring_tokens=request.calibration_tokens,
        confirming_tokens=confirming or request.calibration_tokens,
        seed=request.seed,
    )
    context.progress("calibrate", 1.0, calibration.description)
    return calibration


def score(
    request: Scoring,
    menu: Menu,
    source: ModelSource,
    inventory: Inventory,
    calibration: Calibration | None,
    maker: Maker,
    context: Context,
    target: float | None = None,
) -> SensitivityTable:
    """target: stored bits a weight of the plan, asked for by metrics that look at one target.

    The table; content-addressed by everything that can change a cell, so a new budget or engine never rescores."""
    question = {
        "model": inventory.digest,
        "units": [unit.name for unit in inventory.units],
        "metric": menu.metric,
        "options": dict(menu.recipe.metric_options),
        "samples": request.samples,
        **({"granularity": menu.granularity} if is_finer(menu.granularity) else {}),
        "quantizer": maker.key,
        "calibration": _scored_digest(menu, calibration),
        "tokens": request.calibration_tokens,
        "seed": request.seed,
        "numerics": NUMERICS,
        **({"target": target} if METRICS.get(menu.metric).traits.get("target") else {}),
    }
    require_finite(source, inventory, context)

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
            table = _compute(ours, asked, question, source, inventory, calibration, maker, context, target)
            if not by_column(menu):
                table.save(path)
                return
            keep(question, table, context)
        assemble(question, menu.formats, context).save(path)

    path = context.blobs.memo("scores", digest_json({**question, "formats": list(menu.formats)}), build)
    context.progress("score", 1.0, f"sensitivities of {len(inventory.units)} units in {len(menu.formats)} formats")
    return load_table(path)


def _compute(
    request: Scoring,
    menu: Menu,
    question: Mapping[str, Any],
    source: ModelSource,
    inventory: Inventory,
    calibration: Calibration | None,
    maker: Maker,
    context: Context,
    target: float | None,
) -> SensitivityTable:
    """The table of the menu's formats, in this process or shared out; what is done outlives a kill."""
    with kept_in(context.blobs.path("partial", digest_json({**question, "formats": list(menu.formats)}))) as partial:
        joined = score_in_parts(request, menu, inventory, calibration, maker, context)
        share = share_batches(request, menu, inventory, calibration, maker, context)
        return joined or score_units(
            source,
            inventory,
            menu.formats,
            metric=menu.metric,
            calibration=calibration,
            quantizer=maker,
            seed=request.seed,
            samples=request.samples,
            options=dict(menu.recipe.metric_options),
            progress=context.progress,
            partial=partial if share is ALONE else FORGETFUL,
            granularity=menu.granularity,
            share=share,
            target=target,
        )


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
