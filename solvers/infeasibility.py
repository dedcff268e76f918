"""Why nothing fits: which limit or rule is to blame, in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from bitwright.core.certificate import smallest_totals
from bitwright.core.problem import AT_LEAST, IntArray, Problem
from solvers.reduce import Reduced, Row

#: More constraints than this are not tried one by one.
MOST = 24


def limit_blame(problem: Problem, name: str) -> str:
    """One limit that its own least total breaks."""
    value = next(limit.value for limit in problem.limits if limit.name == name)
    return f"limit {name} = {value} is below the smallest reachable total {smallest_totals(problem)[name]}"


def alone(reduced: Reduced) -> str | None:
    """Blame for a limit or rule that no choice satisfies even by itself; None when each can be met alone."""
    problem, allowed = reduced.problem, np.isfinite(reduced.loss)
    smallest = smallest_totals(problem)
    for limit, row in zip(problem.limits, reduced.limits, strict=True):
        if smallest[limit.name] > limit.value and not _can_hold(row, allowed):
            return limit_blame(problem, limit.name)
    for index, (rule, row) in enumerate(zip(problem.rules, reduced.rules, strict=True)):
        if not _can_hold(row, allowed):
            words = "at least" if rule.sense == AT_LEAST else "at most"
            asked = f"rule {index} asks for {words} {rule.count} of {len(rule.units)} units"
            return f"{asked}, which ties and forbidden formats do not allow"
    return None


def _can_hold(row: Row, allowed: NDArray[np.bool_]) -> bool:
    if row.sense == AT_LEAST:
        return int(np.where(allowed, row.weight, -1).max(axis=1).sum()) >= row.bound
    return int(np.where(allowed, row.weight, np.iinfo(np.int64).max).min(axis=1).sum()) <= row.bound


def conflict(reduced: Reduced, feasible: Callable[[tuple[str, ...]], bool]) -> str:
    """Blame for a problem proved infeasible: a smallest set of limits and rules that exclude each other.

    feasible(names): whether some choice satisfies the named limits and rules. Deletion filter: drop one at a time, keep
    what is needed (Chinneck and Dravnieks 1991).
    """
    single = alone(reduced)
    if single is not None:
        return single
    names = tuple(row.name for row in reduced.rows)
    if len(names) > MOST:
        return "limits and rules together admit no choice"
    for name in names:
        rest = tuple(other for other in names if other != name)
        if not feasible(rest):
            names = rest
    return f"{together(names)}, though each alone can be met"


def together(names: Sequence[str]) -> str:
    """Limits and rules, by the names of their multipliers, that exclude each other."""
    words = [name.replace("rule:", "rule ") if name.startswith("rule:") else f"limit {name}" for name in names]
    whole = f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else "".join(words)
    return f"{whole} together admit no choice"


def with_reachable(blame: str, reachable: Mapping[str, int | float]) -> str:
    """The blame, and how far each limit must move."""
    words = ", ".join(f"{name} = {value}" for name, value in reachable.items())
    return f"{blame}; with every other limit and rule held, the least is {words}" if words else blame


def limit_total(reduced: Reduced, row: Row, choice: IntArray) -> int | float:
    """What a choice of the groups uses of one limit, in original units."""
    limit = next(limit for limit in reduced.problem.limits if limit.name == row.name)
    return reduced.problem.resource(limit.resource).total(reduced.expand(choice), limit.units)
