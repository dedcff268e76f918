"""`vector`: several limits and rules at any size: a vector of multipliers, its certificate, and a repaired plan."""

from __future__ import annotations

from solvers.base import Deadline, Outcome, Solver
from solvers.dual import Rows, maximise
from solvers.dual_exact import polished
from solvers.infeasibility import alone
from solvers.reduce import Reduced
from solvers.repair import repair
from solvers.two_halves import improved

#: Shares of what is left for the smoothed ascent, and then for the exact one; the rest is for the plan.
SMOOTHED, POLISH = 0.5, 0.5


def vector(reduced: Reduced, deadline: Deadline, seed: int) -> Outcome:
    """Proved where few groups matter for what is left of the gap; elsewhere the gap says how good the plan is.

    No plan where the repair finds none.
    """
    blame = alone(reduced)
    if blame is not None:
        return Outcome(None, blame=blame)
    if not reduced.rows:
        return Outcome(reduced.loss.argmin(axis=1))
    rows = Rows.of(reduced)
    dual = maximise(reduced, rows, Deadline.after(max(1e-3, SMOOTHED * deadline.left)))
    dual = polished(reduced, rows, dual, Deadline.after(max(1e-3, POLISH * deadline.left)))
    choice, proof = repair(reduced, rows, dual.multipliers, deadline), None
    if choice is not None:
        choice, proof = improved(reduced, rows, dual.multipliers, choice, deadline)
    multipliers = {
        row.name: reduced.multiplier(row, float(value / scale))
        for row, value, scale in zip(reduced.rows, dual.multipliers, rows.scale, strict=True)
    }
    return Outcome(choice, multipliers, proof=proof, info={"passes": dual.passes})


SOLVER = Solver("vector", vector)
