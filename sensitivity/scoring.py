"""`score`: a model, a menu and a metric in; a sensitivity table out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from bitwright.core.errors import InvalidCalibration, InvalidInput, NotFinite, OutOfResources, Unsupported
from bitwright.core.formats import parse_formats
from bitwright.core.inventory import Inventory
from bitwright.core.mixed_format import is_finer
from bitwright.core.table import SensitivityTable
from bitwright.models import ModelSource
from quantizers.base import Quantizer
from quantizers.mixed import InCut
from sensitivity.base import Metric, Progress, Scores, ScoringTask, numerics, silent
from sensitivity.catalog import METRICS
from sensitivity.data import Calibration
from sensitivity.deltas import Deltas, load_quantizer
from sensitivity.memory import ONE_LAYER, TIGHT, ran_out
from sensitivity.partial import FORGETFUL, Partial
from sensitivity.share import ALONE, Share


def score(
    source: ModelSource,
    inventory: Inventory,
    formats: Sequence[str],
    *,
    metric: str = "fisher",
    calibration: Calibration | None = None,
    quantizer: str | Quantizer = "rtn",
    seed: int = 0,
    samples: int | None = None,
    options: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    partial: Partial = FORGETFUL,
    granularity: str = "tensor",
    share: Share = ALONE,
    target: float | None = None,
) -> SensitivityTable:
    """Predicted rise of the model's loss for every unit in every format.

    formats: names. calibration: from `sensitivity.calibration.load`; only its scoring part is used. quantizer: the one
    that will make the checkpoint. samples: label samples an item (metrics that draw labels). Same inputs and seed, same
    table (on one machine and number of threads to the byte; elsewhere to float32 rounding).
    target: see ScoringTask. partial: keeps half-done sums of exactly this question, for the next run to go on from.
    share: who computes the batches of a pass (see share.py).
    Raises UnknownName, InvalidCalibration, NotFinite, InvalidModel, Unsupported, OutOfResources.
    """
    member: Metric = METRICS.load(metric)
    menu = parse_formats(tuple(formats))
    if samples is not None and samples < 1:
        raise InvalidInput("the number of samples must be positive", got=str(samples))
    if member.needs_data and calibration is None:
        raise InvalidCalibration(
            f"the metric {metric} needs calibration data",
            hint="load some with sensitivity.calibration.load(None, source, inventory), or use weight-mse",
        )
    _known_options(member, options or {})
    if not inventory.units:
        raise InvalidInput("this model has nothing to plan", got="no planned unit", hint="see `bitwright inspect`")
    data = calibration.scoring if calibration is not None and member.needs_data else None
    deltas = Deltas(source, inventory, menu, _maker(quantizer, granularity))
    task = ScoringTask(
        source, inventory, menu, deltas, data, seed, samples, dict(options or {}), progress or silent, partial,
        granularity, share, target,
    )  # fmt: skip
    try:
        scores = _measure(member, granularity)(task)
    except (MemoryError, RuntimeError) as error:
        if not ran_out(error):
            raise
        runs = METRICS.get(metric).traits["passes"] != "none"
        hint = f"score fewer formats at once, {TIGHT}" if runs else ONE_LAYER
        raise OutOfResources("memory ran out while scoring", got=str(error)[:200], hint=hint) from error
    _check(scores, inventory)
    columns, parts = _rows_and_columns(task, scores)
    return SensitivityTable(
        inventory=inventory, formats=columns, loss=scores.loss, stderr=scores.stderr,
        metric=metric, loss_unit=scores.loss_unit, provenance=_provenance(task, metric, scores, calibration),
        extras=scores.extras, granularity=parts, menus=scores.menus,
    )  # fmt: skip


def _known_options(member: Metric, options: Mapping[str, Any]) -> None:
    unknown = sorted(set(options) - member.options)
    if unknown:
        known = ", ".join(sorted(member.options)) or "no options"
        raise InvalidInput(f"the metric {member.name} has no such option", expected=known, got=", ".join(unknown)[:120])


def _rows_and_columns(task: ScoringTask, scores: Scores) -> tuple[tuple[str, ...], str]:
    """(names of the table's columns, what its rows are): rungs and whole units where every unit has its own menu."""
    if scores.menus:
        return tuple(f"rung-{j}" for j in range(scores.loss.shape[1])), "tensor"
    return tuple(f.name for f in task.formats), task.granularity if is_finer(task.granularity) else "tensor"


def _maker(quantizer: str | Quantizer, granularity: str) -> Quantizer:
    """Columns, stored with groups along the outputs, have errors of their own; other parts are cut from plain ones."""
    maker = load_quantizer(quantizer)
    return InCut(maker, granularity) if granularity == "column" else maker


def _measure(member: Metric, granularity: str) -> Callable[[ScoringTask], Scores]:
    """The metric's own way for this granularity. Raises Unsupported."""
    if not is_finer(granularity):
        return member.score
    found: Callable[[ScoringTask], Scores] | None = getattr(member, "score_parts", None)
    if found is None:
        able = [entry.name for entry in METRICS if entry.traits.get("parts")]
        raise Unsupported(
            f"the metric {member.name} gives no losses of parts of tensors",
            expected=" or ".join(able), got=f"granularity {granularity}", hint="plan by tensor, or change the metric",
        )  # fmt: skip
    return found


def _check(scores: Scores, inventory: Inventory) -> None:
    offered = np.array([[bool(name) for name in row] for row in scores.menus]) if scores.menus else True
    bad = np.flatnonzero(~(np.isfinite(scores.loss) | ~np.asarray(offered)).all(axis=1))
    if len(bad):
        names = [inventory.units[i].name if len(scores.loss) == len(inventory.units) else f"part {i}" for i in bad]
        raise NotFinite(
            "scoring gave losses that are NaN or infinite",
            got=f"{len(names)} units, first {names[0]}",
            hint="the model or the calibration data overflows; check both",
        )


def _provenance(task: ScoringTask, metric: str, scores: Scores, calibration: Calibration | None) -> dict[str, Any]:
    used = calibration is not None and task.data is not None
    warnings = list(scores.warnings)
    if scores.unmeasured:
        warnings.append(
            f"{len(scores.unmeasured)} units were not reached by the calibration data; their losses are squared error "
            "scaled like the reached units of the same role"
        )
    return {
        "metric": metric, "parameters": {**dict(scores.parameters), **dict(task.options)},
        "quantizer": task.deltas.quantizer.name, "seed": task.seed,
        "calibration": calibration.digest if used and calibration is not None else None,
        "calibration_description": calibration.description if used and calibration is not None else None,
        "tokens": scores.tokens, "samples": scores.samples, "numerics": numerics(), "torch": _torch_version(used),
        "warnings": warnings, "unmeasured": list(scores.unmeasured), "response": scores.response,
    }  # fmt: skip


def _torch_version(used: bool) -> str | None:
    if not used:
        return None
    import torch

    return str(torch.__version__)
