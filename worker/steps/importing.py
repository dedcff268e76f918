"""Another tool's mix becomes a plan: verified, compared with the best mix of the same formats in the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import solvers
from bitwright.core.certificate import certify
from bitwright.core.errors import UnknownName
from bitwright.core.formats import parse_formats
from bitwright.core.plan import Plan
from bitwright.core.problem import Problem
from bitwright.core.requests import ImportRequest, PlanRequest
from bitwright.core.solution import Solution
from bitwright.core.table import SensitivityTable
from bitwright.engines import load_profile
from quantizers.importers.base import Imported, Importer
from quantizers.importers.catalog import IMPORTERS
from worker.steps.assemble import build_plan, make_provenance
from worker.steps.context import Context
from worker.steps.menu import Menu
from worker.steps.score import publish, score
from worker.steps.study import open_study

#: Any budget of the grammar: an imported plan has none of its own.
_UNBOUNDED = "64bpw"


@dataclass(frozen=True)
class ImportedPlan:
    """plan: the mix as it is. better: the best plan of the same formats in no more bytes that the engine loads, None
    where the mix cannot be bettered."""

    plan: Plan
    better: Plan | None
    table_digest: str

    def to_json(self) -> dict[str, Any]:
        """The result of a job."""
        better = self.better
        return {
            "plan_digest": self.plan.digest, "plan": self.plan.to_json(), "table_digest": self.table_digest,
            "better_digest": None if better is None else better.digest,
            "better": None if better is None else better.to_json(),
        }  # fmt: skip


def run(request: ImportRequest, context: Context) -> dict[str, Any]:
    """Job `import`. Both plans are kept under their digests."""
    found = import_plan(
        request.model, context.locate(request.source), context, kind=request.tool, metric=request.metric,
        formats=request.formats or (), engine=request.engine, seed=request.seed,
    )  # fmt: skip
    for plan in (found.plan, found.better):
        if plan is not None:
            context.blobs.put_as("plans", plan.digest, plan)
    return found.to_json()


def import_plan(
    model: str,
    path: Path,
    context: Context,
    *,
    kind: str | None = None,
    metric: str = "weight-mse",
    formats: Sequence[str] = (),
    engine: str | None = None,
    seed: int = 0,
) -> ImportedPlan:
    """The plan that `path` holds of `model`, and a better one.

    kind: an importer's name, None to find out. metric: how losses are predicted. formats: more columns for the
    comparison, beside those that the mix uses. engine: what a better plan must load in, None for the engine whose file
    it is. Raises UnknownName, InvalidModel, InvalidPlan, Unsupported.
    """
    _, inventory = context.open(model)
    name, importer = _importer(path, kind)
    found: Imported = importer.read(path, inventory)
    chosen = [found.formats[unit.name] for unit in inventory.units]
    names = tuple(format.name for format in parse_formats([*dict.fromkeys(chosen), *formats]))
    request = PlanRequest(model=model, budget=_UNBOUNDED, formats=names, metric=metric, confirm=False, seed=seed)
    study = open_study(request, context)
    menu, table = study.menu, score(study)
    digest = publish(table, context)
    choice = np.array([table.formats.index(format) for format in chosen], np.int64)
    spent = int(table.cost_bytes()[np.arange(len(choice)), choice].sum())

    def planned(menu: Menu, problem: Problem, solution: Solution, warnings: tuple[str, ...]) -> Plan:
        ours = replace(study, menu=menu)
        made = {**make_provenance(ours, table, solution), "imported": name}
        plan = build_plan(ours, table, problem, solution, None, made)
        return plan.model_copy(update={"budget": None, "warnings": (*plan.warnings, *warnings)})

    free = table.problem(spent)
    bound = solvers.solve(free, "auto", time_limit=10.0, seed=0)
    theirs = certify(free, choice, bound.certificate.multipliers)
    own = Solution(choice, theirs.loss, theirs, f"imported from {name}", bound.info)
    tied, problem = _for_engine(menu, table, spent, engine or IMPORTERS.get(name).traits.get("engine"))
    best = bound if problem is None else solvers.solve(problem, "auto", time_limit=10.0, seed=0)
    if not best.feasible or best.loss is None or theirs.loss is None or best.loss >= theirs.loss:
        return ImportedPlan(planned(menu, free, own, found.notes), None, digest)
    where = f", as {tied.profile.name} loads them," if tied.profile else ""
    said = f"the same formats dealt otherwise{where} in these bytes are predicted to lose {best.loss:.4g} instead of "
    plan = planned(menu, free, own, (*found.notes, f"{said}{theirs.loss:.4g}"))
    return ImportedPlan(plan, planned(tied, problem or free, best, ()), digest)


def _for_engine(menu: Menu, table: SensitivityTable, spent: int, engine: str | None) -> tuple[Menu, Problem | None]:
    """The menu and the problem under the engine's ties; None without an engine, or where it loads some unit in none of
    these formats."""
    if engine is None:
        return menu, None
    profile = load_profile(engine)
    allowed = np.array(profile.allowed(table.inventory, table.formats), bool)
    if not allowed.any(axis=1).all():
        return menu, None
    tied = replace(menu, profile=profile, tie_kinds=profile.tie_kinds)
    return tied, table.problem(spent, tie_kinds=profile.tie_kinds, allowed=allowed)


def _importer(path: Path, kind: str | None) -> tuple[str, Importer]:
    if kind is not None:
        return kind, IMPORTERS.load(kind)
    if path.exists():
        for entry in IMPORTERS:
            importer: Importer = entry.load()
            if importer.recognizes(path):
                return entry.name, importer
    raise UnknownName(
        "nothing here looks like a mix that can be imported",
        expected="; ".join(f"{entry.name}: {entry.summary}" for entry in IMPORTERS),
        got=f"{path.name}, "
        + ("which is not there" if not path.exists() else "a folder" if path.is_dir() else "a file"),
    )
