"""`ortools`: OR-Tools CP-SAT, exact in integers, in a process of its own that is killed when it oversteps the clock.

Losses become integers in steps of 2^-50 of their largest total, which the checker's own rounding covers, so a finished
search is a proof. Limits and rules are handed over in the integers that they are.
"""

from __future__ import annotations

import math

import numpy as np

from bitwright.core.problem import AT_LEAST
from solvers import child
from solvers.base import Deadline, Outcome, Solver
from solvers.external import SHARE, Backend, Reply, outside
from solvers.highs import FEASIBLE, INFEASIBLE, OPTIMAL, UNKNOWN
from solvers.reduce import Reduced, divisor

#: The largest total of the integer losses; CP-SAT wants sums well inside int64.
TOTAL_BITS = 50


def _run(reduced: Reduced, scale: float, deadline: Deadline, seed: int) -> Reply:
    arrays = _arrays(reduced)
    if arrays is None:
        return Reply(UNKNOWN)
    arrays.update(seconds=np.array(SHARE * deadline.left), seed=np.array(seed & 0x7FFFFFFF))
    reply = child.call("solvers.cp_sat:answer", arrays, deadline.end)
    if reply is None:
        return Reply(UNKNOWN)
    return Reply(str(reply["status"]), reply.get("choice"))


def _arrays(reduced: Reduced) -> dict[str, np.ndarray] | None:
    """Cells, integer losses, rows (lifted by each group's least weight, divided by their common divisor) and pairs.

    None where a row's weights would overflow in CP-SAT.
    """
    allowed = np.isfinite(reduced.loss)
    group, form = np.nonzero(allowed)
    loss = np.where(allowed, reduced.loss - reduced.loss.min(axis=1, keepdims=True), 0.0)
    total = float(loss.max(axis=1).sum() + np.abs(reduced.pairs.loss).sum())
    power = TOTAL_BITS - math.frexp(total)[1] if total > 0 else 0
    weights, bounds = [], []
    for row in reduced.rows:
        sign = -1 if row.sense == AT_LEAST else 1
        least = np.where(allowed, sign * row.weight, np.iinfo(np.int64).max).min(axis=1)
        flat = (sign * row.weight - least[:, None])[group, form]
        common = max(1, divisor(flat))
        flat = flat // common
        bound = (sign * row.bound - int(least.sum())) // common
        reach = int(np.where(allowed, sign * row.weight - least[:, None], 0).max(axis=1).sum()) // common
        if reach >= 2**61:
            return None
        weights.append(flat)
        bounds.append(max(-1, min(bound, reach)))
    return {
        "group": group, "form": form, "cost": np.rint(np.ldexp(loss[group, form], power)).astype(np.int64),
        "weight": np.array(weights, np.int64).reshape(-1, len(group)), "bound": np.array(bounds, np.int64),
        "pair_unit": reduced.pairs.unit, "pair_format": reduced.pairs.format,
        "pair_cost": np.rint(np.ldexp(reduced.pairs.loss, power)).astype(np.int64),
    }  # fmt: skip


def answer(arrays: child.Arrays) -> child.Arrays:
    """In the child: one search, one worker (the same answer every time), no gap allowed."""
    from ortools.sat.python import cp_model

    model = cp_model.CpModel()
    group, form = arrays["group"].tolist(), arrays["form"].tolist()
    x = [model.new_bool_var("") for _ in group]
    place = dict(zip(zip(group, form, strict=True), x, strict=True))
    by_group: dict[int, list[cp_model.IntVar]] = {}
    for g, variable in zip(group, x, strict=True):
        by_group.setdefault(g, []).append(variable)
    for members in by_group.values():
        model.add_exactly_one(members)
    for weight, bound in zip(arrays["weight"], arrays["bound"].tolist(), strict=True):
        used = np.flatnonzero(weight)
        model.add(cp_model.LinearExpr.weighted_sum([x[i] for i in used], weight[used].tolist()) <= bound)
    terms, costs = list(x), arrays["cost"].tolist()
    units, forms = arrays["pair_unit"].tolist(), arrays["pair_format"].tolist()
    for unit, pair, cost in zip(units, forms, arrays["pair_cost"].tolist(), strict=True):
        ends = [place.get(end) for end in zip(unit, pair, strict=True)]
        if cost and ends[0] is not None and ends[1] is not None:
            both = model.new_bool_var("")
            if cost > 0:
                model.add_bool_or([ends[0].negated(), ends[1].negated(), both])
            else:
                model.add_implication(both, ends[0])
                model.add_implication(both, ends[1])
            terms.append(both)
            costs.append(cost)
    model.minimize(cp_model.LinearExpr.weighted_sum(terms, costs))
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = max(0.01, float(arrays["seconds"]))
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = int(arrays["seed"])
    solver.parameters.relative_gap_limit = 0.0
    solver.parameters.absolute_gap_limit = 0.0
    status = solver.solve(model)
    names = {cp_model.OPTIMAL: OPTIMAL, cp_model.FEASIBLE: FEASIBLE, cp_model.INFEASIBLE: INFEASIBLE}
    found = {"status": np.array(names.get(status, UNKNOWN))}
    if status in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        choice = np.zeros(len(by_group), np.int64)
        for g, j, variable in zip(group, form, x, strict=True):
            if solver.boolean_value(variable):
                choice[g] = j
        found["choice"] = choice
    return found


def cp_sat(reduced: Reduced, deadline: Deadline, seed: int) -> Outcome:
    """Several limits, rules, ties and pair terms."""
    return outside(reduced, deadline, seed, Backend("cp-sat", _run, proof="CP-SAT's complete search"))


SOLVER = Solver("ortools", cp_sat)
