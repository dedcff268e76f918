"""Another tool's mix becomes a plan: verified, compared with the best mix of the same formats in the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

import solvers
from bitwright.core.certificate import certify
from bitwright.core.errors import UnknownName
from bitwright.core.formats import parse_formats
from bitwright.core.plan import Plan
from bitwright.core.requests import PlanRequest
from bitwright.core.solution import Solution
from quantizers.importers.base import Imported, Importer
from quantizers.importers.catalog import IMPORTERS
from worker.steps.assemble import build_plan, make_provenance
from worker.steps.context import Context
from worker.steps.menu import resolve
from worker.steps.quantizing import make_quantizer
from worker.steps.score import calibrate, publish, score

#: Any budget of the grammar: an imported plan has none of its own.
_UNBOUNDED = "64bpw"


def import_plan(
    model: str,
    path: Path,
    context: Context,
    *,
    kind: str | None = None,
    metric: str = "weight-mse",
    formats: Sequence[str] = (),
) -> Plan:
    """The plan that `path` holds of `model`.

    kind: an importer's name, None to find out. metric: how losses are predicted. formats: more columns for the
    comparison, beside those that the mix uses. Raises UnknownName, InvalidModel, InvalidPlan, Unsupported.
    """
    source, inventory = context.open(model)
    name, importer = _importer(path, kind)
    found: Imported = importer.read(path, inventory)
    chosen = [found.formats[unit.name] for unit in inventory.units]
    names = tuple(format.name for format in parse_formats([*dict.fromkeys(chosen), *formats]))
    request = PlanRequest(model=model, budget=_UNBOUNDED, formats=names, metric=metric, confirm=False)
    menu = resolve(request, inventory)
    calibration = calibrate(request, menu, source, inventory, context)
    maker = make_quantizer(menu.quantizer, source, inventory, calibration, context)
    table = score(request, menu, source, inventory, calibration, maker, context)
    publish(table, context)
    choice = np.array([table.formats.index(format) for format in chosen], np.int64)
    spent = int(table.cost_bytes()[np.arange(len(choice)), choice].sum())
    problem = table.problem(spent)
    best = solvers.solve(problem, "auto", time_limit=10.0, seed=0)
    certificate = certify(problem, choice, best.certificate.multipliers)
    solution = Solution(choice, certificate.loss, certificate, f"imported from {name}", best.info)
    provenance = {**make_provenance(request, menu, table, solution, calibration, maker), "imported": name}
    plan = build_plan(request, menu, source, inventory, table, problem, solution, None, provenance, ())
    ours, theirs = float(best.loss or 0.0), float(certificate.loss or 0.0)
    better = f"the same formats dealt otherwise in these bytes are predicted to lose {ours:.4g} instead of "
    said = (f"{better}{theirs:.4g}",) if theirs > ours else ()
    return plan.model_copy(update={"budget": None, "warnings": (*plan.warnings, *found.notes, *said)})


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
