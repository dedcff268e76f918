"""Confirming by several workers: a part measures one variant of the plan against the original model.

What a variant measures does not depend on the others, so the numbers are those of one worker that measures them all.
What is decided before (the solution, under a time limit) is kept by `worker.fanout.once`, see plan.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bitwright.core.canonical import canonical_json, digest_json
from bitwright.core.requests import PlanRequest
from sensitivity import evaluate
from sensitivity.kv_cache import Choice, cached_runner
from sensitivity.memory import too_large
from sensitivity.partial import Partial
from sensitivity.quality import Quality
from worker.fanout import once, other_version, spread
from worker.leftovers import PARTS
from worker.steps.context import Context
from worker.steps.partial import kept_in
from worker.steps.study import Study, open_study

Variants = Mapping[str, Sequence[str]]


def measure(
    study: Study[PlanRequest], variants: Variants, cache: Sequence[Choice], partial: Partial, stream: bool | None = None
) -> dict[str, Quality]:
    """Quality of each variant, in this process. cache: formats of the KV cache that every variant runs with."""
    assert study.calibration is not None, "there is a text where a plan is confirmed"
    return evaluate.measure(
        study.source, study.inventory, variants, study.calibration.confirming, quantizer=study.maker,
        progress=study.context.progress, partial=partial, stream=stream,
        runner=cached_runner(study.source, study.inventory, list(cache)) if cache else None,
    )  # fmt: skip


def measure_in_parts(
    study: Study[PlanRequest], key: Mapping[str, Any], variants: Variants, cache: Sequence[Choice]
) -> dict[str, Quality]:
    """The same, a part for each variant. key: plain JSON, what can change a measurement. Raises FanOut."""
    context = study.context
    question = {
        "request": study.request.model_dump(mode="json", exclude_none=True, exclude={"to", "threads"}),
        "measures": digest_json(key),
        "quantizer": study.maker.key,
        "variants": context.blobs.put_json(PARTS, {name: list(formats) for name, formats in variants.items()}),
        "cache": [[choice.part, choice.format] for choice in cache],
    }
    question["stream"] = once(context, {"decision": "stream", **question}, lambda: too_large(study.inventory))
    items = [{**question, "variant": name} for name in variants]
    paths = spread(context, "measure", "worker.steps.confirm_parts:run", items)
    return {name: Quality(**json.loads(path.read_bytes())) for name, path in zip(variants, paths, strict=True)}


def run(item: Mapping[str, Any], context: Context, path: Path) -> None:
    """One part: one variant."""
    whole = open_study(PlanRequest.model_validate(item["request"]), context)
    if whole.maker.key != item["quantizer"]:
        raise other_version(str(item["quantizer"]), str(whole.maker.key))
    study = replace(whole, inventory=whole.menu.planned(whole.inventory))
    variant = str(item["variant"])
    formats = json.loads(context.blobs.get(PARTS, item["variants"]))[variant]
    cache = [Choice(part, format) for part, format in item["cache"]]
    with kept_in(context.blobs.path("partial", digest_json(dict(item)))) as partial:
        found = measure(study, {variant: formats}, cache, partial, item["stream"])
    path.write_bytes(canonical_json(found[variant].to_json()))
