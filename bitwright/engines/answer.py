"""The whole answer of a preflight: yes or no, reasons, warnings, the nearest plan that loads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bitwright.core.inventory import Inventory
from bitwright.core.plan import Plan
from bitwright.core.table import SensitivityTable
from bitwright.engines.best import Best, Solve, best_loadable
from bitwright.engines.catalog import load_profile
from bitwright.engines.nearest import Nearest, nearest_loadable
from bitwright.engines.preflight import Reason, preflight


@dataclass(frozen=True)
class Preflight:
    """reasons: empty when the plan loads. nearest: a plan that would load; None when none is needed or known.

    best: with a table, the best plan of the same bytes that would load; None when none fits or none was sought.
    """

    engine: str
    title: str
    version: str
    revision: str
    reasons: tuple[Reason, ...]
    nearest: Nearest | None
    warnings: tuple[str, ...]
    best: Best | None = None

    @property
    def loads(self) -> bool:
        return not self.reasons

    def to_json(self) -> dict[str, Any]:
        return {
            "engine": self.engine, "title": self.title, "version": self.version, "revision": self.revision,
            "loads": self.loads,
            "reasons": [{"unit": reason.unit, "message": reason.message} for reason in self.reasons],
            "nearest": None if self.nearest is None else self.nearest.to_json(),
            "best": None if self.best is None else self.best.to_json(), "warnings": list(self.warnings),
        }  # fmt: skip


def answer(
    plan: Plan,
    inventory: Inventory,
    engine: str,
    *,
    device: str | None = None,
    table: SensitivityTable | None = None,
    solve: Solve | None = None,
) -> Preflight:
    """`inventory`: the model as inspected, or as the plan alone tells of it. table: prices the nearest plan, and with
    `solve` gives the best one. Raises UnknownName, InvalidPlan."""
    profile = load_profile(engine)
    kept = {unit.name for unit in inventory.units if unit.tensor in plan.kept}
    planned = inventory.keep(kept, "kept by the plan") if kept else inventory
    reasons = tuple(preflight(plan, planned, profile, device=device))
    same_units = set(plan.formats()) == {unit.name for unit in planned.units}
    nearest = None
    if reasons and same_units:
        nearest = nearest_loadable(plan, planned, profile, device=device, table=table)
    if nearest is not None and not nearest.changed:
        nearest = None  # What is wrong is not a format: another model, or a device that no format helps.
    best = None
    if nearest is not None and table is not None and solve is not None:
        best = best_loadable(plan, table, profile, device, solve)
    return Preflight(
        profile.name, profile.title, profile.version, profile.revision, reasons, nearest, (*inventory.warnings,), best
    )
