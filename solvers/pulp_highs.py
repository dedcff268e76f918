"""`pulp-highs`: PuLP binaries through HiGHS, in a process of its own that is killed when it oversteps the clock."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from solvers import child
from solvers.base import Deadline, Outcome, Solver
from solvers.external import Backend, by_child, outside
from solvers.highs import FEASIBLE, INFEASIBLE, OPTIMAL, UNKNOWN, model_of
from solvers.reduce import Reduced


def answer(arrays: child.Arrays) -> child.Arrays:
    """In the child: one call of HiGHS through PuLP, one thread, both gaps 0."""
    import pulp

    from solvers.cbc import program

    model = model_of(arrays)
    with warnings.catch_warnings():  # PuLP 3.3 announces changes of PuLP 4
        warnings.simplefilter("ignore", DeprecationWarning)
        whole = program(pulp, model, 1.0)
        solver: Any = pulp.HiGHS(
            msg=False, threads=1, gapAbs=0.0, gapRel=0.0, timeLimit=float(arrays["seconds"]),
            random_seed=int(arrays["seed"]), mip_feasibility_tolerance=1e-9,
        )  # fmt: skip
        whole.solve(solver)
    known = {pulp.LpSolutionOptimal: OPTIMAL, pulp.LpSolutionIntegerFeasible: FEASIBLE}
    infeasible = whole.sol_status == pulp.LpSolutionInfeasible
    status = INFEASIBLE if infeasible else known.get(whole.sol_status, UNKNOWN)
    found = {"status": np.array(status)}
    if status in (OPTIMAL, FEASIBLE):
        values = {v.name: v.varValue or 0.0 for v in whole.variables()}
        found["x"] = np.array([values.get(f"x{i:08d}", 0.0) for i in range(len(model.cost))])
    return found


def pulp_highs(reduced: Reduced, deadline: Deadline, seed: int) -> Outcome:
    """Several limits and rules; PuLP passes no dual values of integer programs, so the gap is that of `vector`."""
    return outside(reduced, deadline, seed, Backend("highs", by_child("solvers.pulp_highs:answer")))


SOLVER = Solver("pulp-highs", pulp_highs)
