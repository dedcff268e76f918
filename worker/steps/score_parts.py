"""Scoring by several workers, with the table that one worker would have made, to the byte.

Metrics whose cells need no other unit's say so in their catalog (trait `independent`): units in runs, one part each,
and the parts' tables put together. Other metrics say of each pass what its pieces are (see score_pieces.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bitwright.core.inventory import Inventory
from bitwright.core.requests import Scoring, SensitivityRequest
from bitwright.core.table import SensitivityTable, load_table
from sensitivity.base import numerics
from sensitivity.catalog import METRICS
from sensitivity.share import ALONE, Share
from worker.fanout import cut, other_version, spread
from worker.steps.context import Context
from worker.steps.menu import Menu, resolve
from worker.steps.score_pieces import OnePart, PieceShare, Written
from worker.steps.study import Study, compute, open_study


def score_in_parts(study: Study[Scoring]) -> SensitivityTable | None:
    """The table, made of parts of the units; None when this question is not cut so. Raises FanOut while parts are
    missing."""
    question = _question(study)
    if question is None or not METRICS.get(study.menu.metric).traits.get("independent"):
        return None
    runs = cut(len(study.inventory.units), study.context.settings.shards)
    items = [{**question, "units": [units.start, units.stop]} for units in runs]
    paths = spread(study.context, "score", "worker.steps.score_parts:run", items)
    return join([load_table(path) for path in paths], study.inventory)


def share_pieces(study: Study[Scoring], target: float | None) -> Share:
    """Who computes the pieces of the passes that a metric makes."""
    question, shards = _question(study), study.context.settings.shards
    return ALONE if question is None else PieceShare({**question, "target": target, "shards": shards}, study.context)


def run(item: Mapping[str, Any], context: Context, path: Path) -> None:
    """One part: a table of some of the units."""
    _score(item, context, units=slice(*item["units"])).save(path)


def run_pieces(item: Mapping[str, Any], context: Context, path: Path) -> None:
    """One part: some pieces of one pass. Raises Temporary when this worker would not do that pass."""
    with suppress(Written):
        _score(item, context, share=OnePart(item, context, path))
        raise other_version(f"a pass {item['pass']} of the metric", "none")


def _score(
    item: Mapping[str, Any], context: Context, *, units: slice = slice(None), share: Share = ALONE
) -> SensitivityTable:
    study = open_study(SensitivityRequest.model_validate(item["request"]), context)
    some = replace(study.inventory, units=study.inventory.units[units])
    return compute(replace(study, inventory=some), share=share, target=item.get("target"))


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


def _question(study: Study[Scoring]) -> dict[str, Any] | None:
    """What the parts are named by, as plain JSON; None when one worker scores all."""
    asked = _asked(study.request)
    if study.context.settings.shards < 2 or _choices(resolve(asked, study.inventory)) != _choices(study.menu):
        return None
    return {
        "request": asked.model_dump(mode="json", exclude_none=True),
        "model": study.inventory.digest,
        "calibration": study.calibration.scoring.digest if study.calibration is not None else None,
        "quantizer": study.maker.key,
        "numerics": numerics(),
    }


def _choices(menu: Menu) -> tuple[object, ...]:
    return menu.formats, menu.metric, menu.quantizer, menu.granularity, dict(menu.recipe.metric_options)
