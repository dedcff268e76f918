"""The best plan that an engine loads in the bytes of a plan that it does not: what giving in to the engine costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bitwright.core.plan import Plan
from bitwright.core.problem import Problem
from bitwright.core.solution import Solution
from bitwright.core.table import SensitivityTable
from bitwright.engines.nearest import loadable
from bitwright.engines.profile import EngineProfile

#: A preflight is an answer, not a job: the best plan that loads is sought this long, in seconds.
BEST_SECONDS = 5.0
#: Solves a problem within BEST_SECONDS: at hand where solvers may be imported, in a process of its own elsewhere.
Solve = Callable[[Problem], Solution]


@dataclass(frozen=True)
class Best:
    """The best plan that the engine loads in no more bytes than the plan at hand, by the same sensitivity table.

    loss_delta: what is lost by giving in to the engine (ties, menu), in predicted loss; bytes: of planned units.
    """

    formats: Mapping[str, str]
    bytes: int
    predicted_loss: float
    loss_delta: float

    def to_json(self) -> dict[str, Any]:
        return {"bytes": self.bytes, "predicted_loss": self.predicted_loss, "loss_delta": self.loss_delta}


def best_loadable(
    plan: Plan, table: SensitivityTable, profile: EngineProfile, device: str | None, solve: Solve
) -> Best | None:
    """The table solved again under the engine's ties and menu. None for a table of other units, and where no plan of
    these bytes loads. Raises UnknownName for a device."""
    kept = {unit.name for unit in table.inventory.units if unit.tensor in plan.kept}
    if kept:
        table = table.without_units(table.inventory.keep(kept, "kept by the plan"))
    if set(plan.formats()) != {unit.name for unit in table.inventory.units}:
        return None
    allowed = np.array(loadable(table.inventory, table.formats, profile, device), bool)
    if not allowed.any(axis=1).all() or len(table.row_units) != len(plan.units):
        return None
    problem = table.problem(plan.totals.bytes, tie_kinds=profile.tie_kinds, allowed=allowed)
    solution = solve(problem)
    if not solution.feasible or solution.loss is None:
        return None
    rows = zip(table.inventory.units, solution.choice.tolist(), strict=True)
    formats = {unit.name: table.formats[column] for unit, column in rows}
    spent = problem.resource("bytes").total(solution.choice)
    return Best(formats, int(spent), float(solution.loss), float(solution.loss) - plan.totals.predicted_loss)
