"""The last word is measured: real KL of the plan and of uniform plans on held-out calibration data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bitwright.core.canonical import canonical_json, digest_json
from bitwright.core.plan import CacheChoice, Measured, Uniform
from bitwright.core.problem import IntArray
from bitwright.core.requests import PlanRequest
from bitwright.core.solution import Solution
from bitwright.core.table import SensitivityTable
from sensitivity.base import numerics
from sensitivity.kv_cache import Choice
from sensitivity.quality import Quality
from worker.fanout import shared
from worker.steps.baselines import Baselines
from worker.steps.confirm_parts import measure, measure_in_parts
from worker.steps.joint import Joint
from worker.steps.partial import kept_in
from worker.steps.study import Study


def confirm(
    study: Study[PlanRequest],
    table: SensitivityTable,
    solution: Solution,
    beside: Baselines,
    cache: tuple[CacheChoice, ...] = (),
    joint: Joint | None = None,
) -> tuple[Measured, str]:
    """(measurement, what is to be taken: `plan`, `joint` when it measured better, or `feasible_uniform` when that did).

    cache: formats of the KV cache that every variant runs with.
    """
    choices = {"plan": solution.choice}
    pairs = (("uniform", beside.above), ("feasible_uniform", beside.below), ("positional", beside.positional))
    choices |= {name: c for name, c in pairs if c is not None}
    if joint is not None and not np.array_equal(joint.choice, solution.choice):
        choices["joint"] = joint.choice
    variants = {name: table.unit_formats(choice) for name, choice in choices.items()}
    quality = _measure(study, variants, cache)
    paired = quality.get("joint", quality["plan"])
    taken = mixing = "joint" if paired.kl < quality["plan"].kl else "plan"
    mixed = quality[mixing]
    if "feasible_uniform" in quality and quality["feasible_uniform"].kl < mixed.kl:
        taken = "feasible_uniform"
    chosen = quality[taken]
    extra: dict[str, Any] = dict(chosen.extra)
    if "feasible_uniform" in quality:
        extra["feasible_uniform"] = _uniform(
            table, choices["feasible_uniform"], quality["feasible_uniform"]
        ).model_dump()
    if "positional" in quality:
        extra["positional"] = _told(table, choices["positional"], quality["positional"])
    if joint is not None:
        extra["joint"] = _joint(joint, paired, quality, taken)
    fallback = None
    if taken == "feasible_uniform":
        fallback = (
            f"the best feasible uniform plan measured {chosen.kl:.4g} against {mixed.kl:.4g} "
            "of the mixed plan, so it was taken"
        )
        extra["mixed"] = _told(table, choices[mixing], mixed)
    return (
        Measured(
            kl=chosen.kl,
            stderr=chosen.stderr,
            tokens=chosen.tokens,
            unit=chosen.unit,
            uniform=_uniform(table, choices["uniform"], quality["uniform"]) if "uniform" in quality else None,
            fallback=fallback,
            extra=extra,
        ),
        taken,
    )


def _measure(
    study: Study[PlanRequest], variants: Mapping[str, list[str]], cache: tuple[CacheChoice, ...]
) -> dict[str, Quality]:
    """Measured once, remembered by everything that can change it: a job that starts again does not measure again."""
    assert study.calibration is not None
    inventory, context = study.inventory, study.context
    rounded = [Choice(choice.part, choice.format) for choice in cache]
    key: dict[str, Any] = {
        "model": inventory.digest,
        "units": [unit.name for unit in inventory.units],
        "variants": dict(variants),
        "data": study.calibration.confirming.digest,
        "quantizer": study.maker.key,
        "numerics": numerics(),
    }
    if cache:
        key["cache"] = [[choice.part, choice.format] for choice in cache]
    digest = digest_json(key)

    def build(path: Path) -> None:
        if shared(context):
            found = measure_in_parts(study, key, variants, rounded)
        else:
            found = measure(study, variants, rounded, partial)
        path.write_bytes(canonical_json({name: quality.to_json() for name, quality in found.items()}))

    with kept_in(context.blobs.path("partial", digest)) as partial:
        stored = json.loads(context.blobs.memo("measures", digest, build).read_bytes())
    return {name: Quality(**quality) for name, quality in stored.items()}


def _uniform(table: SensitivityTable, choice: IntArray, quality: Quality) -> Uniform:
    column = int(choice[0])
    return Uniform(
        format=table.formats[column],
        kl=quality.kl,
        stderr=quality.stderr,
        bytes=int(table.cost_bytes()[:, column].sum()),
        predicted_loss=float(table.loss[:, column].sum()),
    )


def _joint(joint: Joint, paired: Quality, quality: Mapping[str, Quality], taken: str) -> dict[str, Any]:
    return {
        "kl": paired.kl, "stderr": paired.stderr, "additive_kl": quality["plan"].kl, "predicted": joint.predicted,
        "additive_predicted": joint.of_plan, "why": joint.why, "same": "joint" not in quality,
        "taken": taken == "joint",
    }  # fmt: skip


def _told(table: SensitivityTable, choice: IntArray, quality: Quality) -> dict[str, Any]:
    rows = np.arange(len(choice))
    return {
        "kl": quality.kl,
        "stderr": quality.stderr,
        "bytes": int(table.cost_bytes()[rows, choice].sum()),
        "predicted_loss": float(table.loss[rows, choice].sum()),
    }
