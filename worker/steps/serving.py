"""Device budgets: weights and KV cache in one problem, beside activations and what the engine takes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitwright.core.budget import Budget, Served, parse_budget
from bitwright.core.canonical import canonical_json, digest_json
from bitwright.core.certificate import certify
from bitwright.core.claim import Certificate
from bitwright.core.device import Joint, join
from bitwright.core.errors import Unsupported
from bitwright.core.plan import CacheChoice, Memory
from bitwright.core.problem import Problem
from bitwright.core.requests import PlanRequest
from bitwright.core.solution import Solution
from bitwright.core.table import SensitivityTable
from bitwright.engines.memory import activation_bytes, cache_bytes, served_shape, usable_bytes
from sensitivity.base import numerics
from sensitivity.kv_cache import UNROUNDED, Choice, measure_kv
from worker.steps.study import Study


@dataclass(frozen=True)
class Serving:
    """A device budget worked out. rows: for each part of the cache, its possible formats."""

    served: Served
    device_bytes: int
    usable_bytes: int
    activation_bytes: int
    engine_bytes: int
    rows: tuple[tuple[CacheChoice, ...], ...]

    @property
    def reserved_bytes(self) -> int:
        """What the limit on file and cache does not have: the device's own share, activations, the engine."""
        return self.device_bytes - self.usable_bytes + self.activation_bytes + self.engine_bytes

    @property
    def menu(self) -> tuple[CacheChoice, ...]:
        """Every format of every part."""
        return tuple(choice for row in self.rows for choice in row)

    def joined(self, problem: Problem) -> Joint:
        """Weights and cache in one problem."""
        return join(problem, self.menu)

    @property
    def smallest_bytes(self) -> int:
        """The least that the cache can take."""
        return sum(min(choice.bytes for choice in row) for row in self.rows)

    def chosen(self, solution: Solution, problem: Problem) -> tuple[CacheChoice, ...]:
        """The cache's part of a solution of the extended problem."""
        found, start = [], problem.k
        for i, row in enumerate(self.rows):
            found.append(row[int(solution.choice[problem.n + i]) - start])
            start += len(row)
        return tuple(found)

    def memory(self, cache: tuple[CacheChoice, ...], file_bytes: int, joint: Certificate) -> Memory:
        """How the budget is spent, for the plan document."""
        spent = file_bytes + sum(choice.bytes for choice in cache) + self.activation_bytes + self.engine_bytes
        return Memory(
            context=self.served.context, batch=self.served.batch, device_bytes=self.device_bytes,
            usable_bytes=self.usable_bytes, activation_bytes=self.activation_bytes, engine_bytes=self.engine_bytes,
            cache=cache, total_bytes=spent, joint=joint.to_json(), menu=self.menu,
        )  # fmt: skip


def certify_joint(found: Joint, weights: Solution, cache: tuple[CacheChoice, ...], solved: Solution) -> Certificate:
    """Certificate of the plan itself in the problem of weights and cache, by the multipliers that solved it.

    The search that closed its gap holds for the plan too where the plan loses no more than what the search found.
    """
    choice = found.choice(weights.choice, cache)
    plain = certify(found.problem, choice, solved.certificate.multipliers)
    better = solved.loss is not None and plain.loss is not None and plain.loss <= solved.loss
    proof = solved.certificate.proof if better else None
    return certify(found.problem, choice, solved.certificate.multipliers, proof=proof)


def serving(study: Study[PlanRequest], table: SensitivityTable) -> Serving | None:
    """The device budget of a request, or None for another budget.

    Raises Unsupported without an engine, for models without a cache, and for metrics whose losses are not in nats.
    """
    budget, profile = parse_budget(study.request.budget), study.menu.profile
    if budget.served is None:
        return None
    if profile is None or profile.memory is None or not profile.kv_cache:
        raise Unsupported(
            "a device budget needs an engine whose profile tells its memory", expected="--engine NAME",
            got=profile.name if profile else "no engine", hint="`bitwright engines` lists KV cache formats",
        )  # fmt: skip
    shape = served_shape(study.source.config)
    kinds = [row for row in profile.kv_cache if shape.head_size % row.block == 0]
    own = {"BF16": "bf16", "F16": "fp16"}.get(study.inventory.units[0].dtype, "fp16")
    losses = _losses(study, kinds, table)
    parts: dict[str, list[CacheChoice]] = {}
    for row in kinds:
        if row.format in UNROUNDED and row.format not in (own, "f16") and any(k.format == own for k in kinds):
            continue  # The other 16-bit type costs the same and may overflow or round what the model's own does not.
        loss, stderr = losses[Choice(row.parts, row.format)]
        size = cache_bytes(shape, budget.served, row)
        parts.setdefault(row.parts, []).append(
            CacheChoice(part=row.parts, format=row.format, bytes=size, loss=loss, stderr=stderr)
        )
    memory = profile.memory
    return Serving(
        budget.served, int(budget.value), usable_bytes(budget.value, memory),
        activation_bytes(shape, budget.served, memory), memory.fixed_bytes, tuple(tuple(r) for r in parts.values()),
    )  # fmt: skip


def _losses(
    study: Study[PlanRequest], kinds: list[Any], table: SensitivityTable
) -> dict[Choice, tuple[float, float | None]]:
    """(loss, standard error) of every line, measured once and remembered."""
    source, inventory, context = study.source, study.inventory, study.context
    choices = [Choice(row.parts, row.format) for row in kinds]
    if study.calibration is None or not table.loss_unit.startswith("nats"):
        raise Unsupported(
            "a device budget weighs the cache against weights, so losses must be in nats", expected="--metric fisher",
            got=f"{table.metric}, in {table.loss_unit}",
        )  # fmt: skip
    data = study.calibration.scoring
    key = {
        "model": inventory.digest, "cache": [[c.part, c.format] for c in choices], "data": data.digest,
        "numerics": numerics(),
    }  # fmt: skip

    def build(path: Path) -> None:
        found = measure_kv(source, inventory, choices, data, progress=context.progress)
        rows = [[0.0, None] if quality is None else [quality.kl, quality.stderr] for quality in found.values()]
        path.write_bytes(canonical_json(rows))

    stored = json.loads(context.blobs.memo("caches", digest_json(key), build).read_bytes())
    return {choice: (float(loss), stderr) for choice, (loss, stderr) in zip(choices, stored, strict=True)}


def device_words(budget: Budget, smallest_bytes: int, found: Serving) -> tuple[str, int]:
    """(the smallest device budget in words, in bytes) when file and cache take `smallest_bytes` at least."""
    share = found.usable_bytes / found.device_bytes
    device = int((smallest_bytes + found.activation_bytes + found.engine_bytes) / share) + 1
    served = budget.served or found.served
    return f"{device}B device, {served.context} context, batch {served.batch}", device
