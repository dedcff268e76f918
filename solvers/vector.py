"""`vector`: several limits and rules at any size: a vector of multipliers, its certificate, and a repaired plan."""

from __future__ import annotations

from solvers.base import Deadline, Outcome, Solver
from solvers.dual import Rows, maximise
from solvers.infeasibility import alone
from solvers.reduce import Reduced
from solvers.repair import repair


def vector(reduced: Reduced, deadline: Deadline, seed: int) -> Outcome:
    """Bounded by construction: the gap says how good the plan is. No plan when the repair finds none."""
    blame = alone(reduced)
    if blame is not None:
        return Outcome(None, blame=blame)
    if not reduced.rows:
        return Outcome(reduced.loss.argmin(axis=1))
    rows = Rows.of(reduced)
    dual = maximise(reduced, rows, deadline)
    choice = repair(reduced, rows, dual.multipliers, deadline)
    multipliers = {
        row.name: reduced.multiplier(row, float(value / scale))
        for row, value, scale in zip(reduced.rows, dual.multipliers, rows.scale, strict=True)
    }
    return Outcome(choice, multipliers, info={"passes": dual.passes})


SOLVER = Solver("vector", vector)
