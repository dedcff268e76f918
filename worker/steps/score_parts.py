"""Scoring by several workers: units in runs, one part each, for metrics whose cells need no other unit's.

Such a metric says so in its catalog (trait `independent`). The parts' tables, put together in the order of the units,
are the table that one worker would have made, to the byte.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bitwright.core.inventory import Inventory
from bitwright.core.requests import Scoring, SensitivityRequest
from bitwright.core.table import SensitivityTable, load_table
from sensitivity.base import NUMERICS
from sensitivity.catalog import METRICS
from sensitivity.data import Calibration
from sensitivity.scoring import score as score_units
from worker.fanout import cut, spread
from worker.steps.context import Context
from worker.steps.menu import Menu, resolve
from worker.steps.quantizing import Maker, make_quantizer


def score_in_parts(
    request: Scoring, menu: Menu, inventory: Inventory, calibration: Calibration | None, maker: Maker, context: Context
) -> SensitivityTable | None:
    """The table, made of parts; None when this question is not cut. Raises FanOut while parts are missing."""
    asked = _asked(request)
    independent = bool(METRICS.get(menu.metric).traits.get("independent"))
    if context.settings.shards < 2 or not independent or _question(resolve(asked, inventory)) != _question(menu):
        return None
    shared = {
        "request": asked.model_dump(mode="json", exclude_none=True),
        "model": inventory.digest,
        "calibration": calibration.scoring.digest if calibration is not None else None,
        "quantizer": maker.key,
        "numerics": NUMERICS,
    }
    runs = cut(len(inventory.units), context.settings.shards)
    items = [{**shared, "units": [units.start, units.stop]} for units in runs]
    paths = spread(context, "score", "worker.steps.score_parts:run", items)
    return join([load_table(path) for path in paths], inventory)


def run(item: Mapping[str, Any], context: Context, path: Path) -> None:
    """One part: a table of some of the units."""
    from worker.steps.score import calibrate

    request = SensitivityRequest.model_validate(item["request"])
    source, inventory = context.open(request.model)
    menu = resolve(request, inventory)
    calibration = calibrate(request, menu, source, inventory, context)
    maker = make_quantizer(menu.quantizer, source, inventory, calibration, context)
    start, stop = item["units"]
    table = score_units(
        source,
        replace(inventory, units=inventory.units[start:stop]),
        menu.formats,
        metric=menu.metric,
        calibration=calibration,
        quantizer=maker,
        seed=request.seed,
        samples=request.samples,
        options=dict(menu.recipe.metric_options),
        progress=context.progress,
        granularity=menu.granularity,
    )
    table.save(path)


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


def _question(menu: Menu) -> tuple[object, ...]:
    return menu.formats, menu.metric, menu.quantizer, menu.granularity, dict(menu.recipe.metric_options)
