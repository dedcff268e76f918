"""Scoring by several workers, with the table that one worker would have made, to the byte.

Metrics whose cells need no other unit's say so in their catalog (trait `independent`): units in runs, one part each,
and the parts' tables put together. Metrics that add up what batches give: batches in runs (see score_batches.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bitwright.core.errors import Unsupported
from bitwright.core.inventory import Inventory
from bitwright.core.requests import Scoring, SensitivityRequest
from bitwright.core.table import SensitivityTable, load_table
from sensitivity.base import NUMERICS
from sensitivity.catalog import METRICS
from sensitivity.data import Calibration
from sensitivity.scoring import score as score_units
from sensitivity.share import ALONE, Share
from worker.fanout import cut, spread
from worker.steps.context import Context
from worker.steps.menu import Menu, resolve
from worker.steps.quantizing import Maker, make_quantizer
from worker.steps.score_batches import BatchShare, OnePart, Written


def score_in_parts(
    request: Scoring, menu: Menu, inventory: Inventory, calibration: Calibration | None, maker: Maker, context: Context
) -> SensitivityTable | None:
    """The table, made of parts of the units; None when this question is not cut so. Raises FanOut while parts are
    missing."""
    question = _question(request, menu, inventory, calibration, maker, context)
    if question is None or not METRICS.get(menu.metric).traits.get("independent"):
        return None
    runs = cut(len(inventory.units), context.settings.shards)
    items = [{**question, "units": [units.start, units.stop]} for units in runs]
    paths = spread(context, "score", "worker.steps.score_parts:run", items)
    return join([load_table(path) for path in paths], inventory)


def share_batches(
    request: Scoring, menu: Menu, inventory: Inventory, calibration: Calibration | None, maker: Maker, context: Context
) -> Share:
    """Who computes the batches of a metric that works through them."""
    question = _question(request, menu, inventory, calibration, maker, context)
    return ALONE if question is None else BatchShare({**question, "shards": context.settings.shards}, context)


def run(item: Mapping[str, Any], context: Context, path: Path) -> None:
    """One part: a table of some of the units."""
    _score(item, context, units=slice(*item["units"])).save(path)


def run_batches(item: Mapping[str, Any], context: Context, path: Path) -> None:
    """One part: some batches of one pass. Raises Unsupported when this worker would not do that pass."""
    with suppress(Written):
        _score(item, context, share=OnePart(item, context, path))
        raise Unsupported("the workers of one job score differently", hint="run the same version on every worker")


def _score(
    item: Mapping[str, Any], context: Context, *, units: slice = slice(None), share: Share = ALONE
) -> SensitivityTable:
    from worker.steps.score import calibrate

    request = SensitivityRequest.model_validate(item["request"])
    source, inventory = context.open(request.model)
    menu = resolve(request, inventory)
    calibration = calibrate(request, menu, source, inventory, context)
    maker = make_quantizer(menu.quantizer, source, inventory, calibration, context, menu.quantizer_options)
    return score_units(
        source,
        replace(inventory, units=inventory.units[units]),
        menu.formats,
        metric=menu.metric,
        calibration=calibration,
        quantizer=maker,
        seed=request.seed,
        samples=request.samples,
        options=dict(menu.recipe.metric_options),
        progress=context.progress,
        granularity=menu.granularity,
        share=share,
    )


def join(tables: Sequence[SensitivityTable], inventory: Inventory) -> SensitivityTable:
    """Tables of consecutive runs of the units as the one of them all."""
    first = tables[0]
    told = [table.provenance for table in tables]
    provenance = {
        **first.provenance,
        "warnings": list(dict.fromkeys(warning for one in told for warning in one["warnings"])),
        "unmeasured": [name for one in told for name in one["unmeasured"]],
    }
    extras = {name: np.concatenate([t.extras[name] for t in tables], axis=-2) for name in first.extras}
    return replace(
        first,
        inventory=inventory,
        loss=np.concatenate([table.loss for table in tables]),
        stderr=np.concatenate([table.stderr for table in tables]),
        provenance=provenance,
        extras=extras,
    )


def _asked(request: Scoring) -> SensitivityRequest:
    """What scoring alone depends on: requests that differ in the rest (a budget, say) share their parts."""
    names = set(SensitivityRequest.model_fields) - {"kind", "threads"}
    members = {name: getattr(request, name) for name in names if hasattr(request, name)}
    return SensitivityRequest.model_validate(members)


def _question(
    request: Scoring, menu: Menu, inventory: Inventory, calibration: Calibration | None, maker: Maker, context: Context
) -> dict[str, Any] | None:
    """What the parts are named by, as plain JSON; None when one worker scores all."""
    asked = _asked(request)
    if context.settings.shards < 2 or _choices(resolve(asked, inventory)) != _choices(menu):
        return None
    return {
        "request": asked.model_dump(mode="json", exclude_none=True),
        "model": inventory.digest,
        "calibration": calibration.scoring.digest if calibration is not None else None,
        "quantizer": maker.key,
        "numerics": NUMERICS,
    }


def _choices(menu: Menu) -> tuple[object, ...]:
    return menu.formats, menu.metric, menu.quantizer, menu.granularity, dict(menu.recipe.metric_options)
