"""`pulp`: the peers' way, PuLP binaries handed to CBC, here with scaled losses and a bound that CBC has no part in.

CBC prints 'Optimal' over answers that its absolute tolerances allow (research/05 section 2), so its word is not taken
as a proof: the certificate states the gap to the Lagrangian bound of the multipliers of `vector`.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from solvers import cbc
from solvers.base import Deadline, Outcome, Solver
from solvers.highs import INFEASIBLE
from solvers.infeasibility import alone, conflict
from solvers.linear_model import build
from solvers.reduce import Reduced
from solvers.vector import vector

#: Loss above the unlimited optimum after scaling, and the largest loss that CBC may then see (as in `milp`).
EXCESS, LARGEST = 1e4, 1e8


def pulp_cbc(reduced: Reduced, deadline: Deadline, seed: int) -> Outcome:
    """Several limits and rules. The plan is that of `vector` where CBC has none in time, or one that breaks a row."""
    blame = alone(reduced)
    if blame is not None:
        return Outcome(None, blame=blame)
    start = vector(reduced, deadline, seed)
    if not reduced.rows:
        return start
    program = build(reduced, reduced.rows)
    scale = _scale(reduced, start, float(np.abs(program.model.cost).max()))
    answer = cbc.run(program.model, seconds=deadline.left, cost_scale=scale)
    if answer.status == INFEASIBLE and start.choice is None:
        return Outcome(None, blame=conflict(reduced, lambda names: _feasible(reduced, names, deadline)))
    info = {**start.info, "cbc": answer.status}
    if answer.x is None:
        return replace(start, info={**info, "plan": "vector"})
    choice = program.choice(answer.x, reduced.groups)
    if not all(row.holds(choice) for row in reduced.rows):
        return replace(start, info={**info, "plan": "vector"})
    return replace(start, choice=choice, info=info)


def _scale(reduced: Reduced, start: Outcome, largest: float) -> float:
    """Power of two that brings the excess of the known plan over the unlimited optimum to about EXCESS."""
    if not largest > 0:
        return 1.0
    least = float(reduced.loss.min(axis=1).sum())
    excess = largest if start.choice is None else reduced.objective(start.choice) - least
    if not excess > 1e-12 * largest:
        excess = largest
    return 2.0 ** min(math.frexp(EXCESS / excess)[1], math.frexp(LARGEST / largest)[1])


def _feasible(reduced: Reduced, names: tuple[str, ...], deadline: Deadline) -> bool:
    rows = tuple(row for row in reduced.rows if row.name in names)
    answer = cbc.run(build(reduced, rows).model, seconds=max(1.0, deadline.left), cost_scale=0.0)
    return answer.status != INFEASIBLE


SOLVER = Solver("pulp", pulp_cbc)
