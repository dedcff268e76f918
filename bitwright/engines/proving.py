"""The problem that a plan answers, put together again from its sensitivity table: menu, ties, units that are kept."""

from __future__ import annotations

import numpy as np

from bitwright.core.errors import InvalidPlan
from bitwright.core.plan import Plan
from bitwright.core.problem import Problem
from bitwright.core.table import SensitivityTable
from bitwright.engines.catalog import load_profile


def plan_problem(plan: Plan, table: SensitivityTable) -> Problem:
    """The table's problem without a limit, as the plan's engine cuts it, with the plan's own tie groups.

    Raises InvalidPlan for a tie that names no unit, UnknownName for an engine that is not known here.
    """
    kept = {unit.name for unit in table.inventory.units if unit.tensor in plan.kept}
    if kept:
        table = table.without_units(table.inventory.keep(kept, f"kept by the plan for {plan.engine}"))
    allowed = None
    if plan.engine is not None:
        allowed = np.array(load_profile(plan.engine).allowed(table.inventory, table.formats), bool)
    base = table.problem(None, allowed=allowed)
    tie = np.arange(base.n)
    for group in plan.ties:
        if any(not 0 <= index < base.n for index in group):
            raise InvalidPlan("a tie of the plan names a unit that the table does not have")
        tie[list(group)] = group[0]
    return Problem(
        base.loss, base.resources, base.limits, tie, unit_names=base.unit_names, format_names=base.format_names
    )
