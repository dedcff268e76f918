"""`ortools-mathopt`: SCIP through OR-Tools' MathOpt, in a process of its own that is killed when it is late.

A process of its own for a second reason: MathOpt and highspy cannot be loaded into one (research/05 section 7).
"""

from __future__ import annotations

import datetime

import numpy as np

from solvers import child
from solvers.base import Deadline, Outcome, Solver
from solvers.external import Backend, by_child, outside
from solvers.highs import FEASIBLE, INFEASIBLE, OPTIMAL, UNKNOWN
from solvers.reduce import Reduced


def answer(arrays: child.Arrays) -> child.Arrays:
    """In the child: one call of SCIP, one thread, both gaps 0."""
    from ortools.math_opt.python import mathopt

    model = mathopt.Model()
    kinds = zip(arrays["integer"].tolist(), arrays["cost"].tolist(), strict=True)
    x, terms = [], []
    for whole, cost in kinds:
        variable = model.add_variable(lb=0.0, ub=1.0, is_integer=whole)
        x.append(variable)
        terms.append(cost * variable)
    start, index, value = arrays["start"].tolist(), arrays["index"].tolist(), arrays["value"].tolist()
    for r, (low, high) in enumerate(zip(arrays["low"].tolist(), arrays["high"].tolist(), strict=True)):
        row = model.add_linear_constraint(lb=low, ub=high)
        for q in range(start[r], start[r + 1]):
            row.set_coefficient(x[index[q]], value[q])
    model.minimize(mathopt.fast_sum(terms))
    parameters = mathopt.SolveParameters(
        time_limit=datetime.timedelta(seconds=max(0.01, float(arrays["seconds"]))), threads=1,
        random_seed=int(arrays["seed"]), relative_gap_tolerance=0.0, absolute_gap_tolerance=0.0,
    )  # fmt: skip
    result = mathopt.solve(model, mathopt.SolverType.GSCIP, params=parameters)
    reasons = mathopt.TerminationReason
    names = {reasons.OPTIMAL: OPTIMAL, reasons.FEASIBLE: FEASIBLE, reasons.INFEASIBLE: INFEASIBLE}
    status = names.get(result.termination.reason, UNKNOWN)
    found = {"status": np.array(status)}
    if status in (OPTIMAL, FEASIBLE):
        values = result.variable_values()
        found["x"] = np.array([values[variable] for variable in x])
    return found


def math_opt(reduced: Reduced, deadline: Deadline, seed: int) -> Outcome:
    """Several limits, rules, ties and pair terms."""
    backend = Backend("scip", by_child("solvers.math_opt:answer"), proof="SCIP branch and bound")
    return outside(reduced, deadline, seed, backend)


SOLVER = Solver("ortools-mathopt", math_opt)
