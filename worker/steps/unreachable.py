"""An infeasible budget is an answer: it says the smallest budget that can be met, in the words of the request."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import solvers
from bitwright.core.budget import parse_budget
from bitwright.core.errors import Infeasible
from bitwright.core.mixed_format import is_finer
from bitwright.core.problem import Problem
from bitwright.core.requests import PlanRequest
from bitwright.core.solution import Solution
from bitwright.core.table import SensitivityTable
from worker.steps.limits import bytes_limit, other_bytes
from worker.steps.menu import require_reachable
from worker.steps.serving import Serving, device_words
from worker.steps.study import Opened
from worker.steps.terms import constrained, smallest_bytes

#: A budget that is not refused within this time, in seconds, is left to the whole problem.
SECONDS = 2.0


def beyond_reach(found: Opened[PlanRequest]) -> dict[str, Any] | None:
    """The answer where sizes alone show that no plan fits, before anything is scored; None: go on.

    Device budgets and parts of tensors are left to the whole problem.
    """
    menu, inventory = found.menu, found.inventory
    if is_finer(menu.granularity) or parse_budget(found.request.budget).served is not None:
        return None
    allowed = menu.allowed(inventory)
    require_reachable(allowed, inventory, menu)
    zeros = np.zeros((len(inventory.units), len(menu.formats)))
    table = SensitivityTable(inventory, menu.formats, zeros, zeros, menu.metric, "", {})
    plain = table.problem(bytes_limit(found, None), tie_kinds=menu.tie_kinds, allowed=allowed)
    problem = constrained(plain, menu.recipe, inventory.units)
    solution = solvers.solve(problem, "auto", time_limit=SECONDS, seed=found.request.seed)
    return unreachable(found, table, problem, solution, None) if solution.certificate.status == "infeasible" else None


def unreachable(
    study: Opened[PlanRequest], table: SensitivityTable, problem: Problem, solution: Solution, found: Serving | None
) -> dict[str, Any]:
    """The problem document of an infeasible solution. found: of a device budget."""
    try:
        solution.require()
    except Infeasible as error:
        answer = error.to_problem()
    answer["got"] = f"a budget of {study.request.budget}"
    units = [study.inventory.units[i] for i in table.row_units]
    smallest = smallest_bytes(problem, study.menu.recipe, units)
    if smallest is not None:
        words, answer["smallest_budget"] = _smallest_words(study, smallest, found)
        answer["hint"] = f"the smallest feasible budget is {words}"
    return answer


def _smallest_words(study: Opened[PlanRequest], smallest: int, found: Serving | None) -> tuple[str, dict[str, Any]]:
    """(the smallest budget in the words of the request, the same as numbers), from the units' smallest bytes."""
    budget = parse_budget(study.request.budget)
    if found is not None:
        words, device = device_words(budget, smallest + found.smallest_bytes + other_bytes(study), found)
        return words, {"device_bytes": device}
    bpw = math.ceil(1e4 * 8 * smallest / study.inventory.weights) / 1e4
    numbers: dict[str, Any] = {"bpw": bpw, "unit_bytes": smallest}
    words = f"{bpw}bpw ({smallest} bytes in planned units)"
    if budget.whole_file:
        numbers["file_bytes"] = smallest + other_bytes(study)
        words = f"{numbers['file_bytes']}B for the whole file, or {words}"
    return words, numbers
