"""`greedy`: steepest hull steps first, skipping what does not fit. The baseline that others use, here with a bound."""

from __future__ import annotations

import numpy as np

from bitwright.core.problem import IntArray
from solvers.base import Deadline, Outcome, Solver
from solvers.hulls import Hulls, build_hulls, relax
from solvers.infeasibility import limit_blame
from solvers.reduce import Reduced


def greedy(reduced: Reduced, deadline: Deadline, seed: int) -> Outcome:
    """One limit or none. The multiplier is the slope of the first step that does not fit."""
    if not reduced.limits:
        return Outcome(reduced.loss.argmin(axis=1))
    row = reduced.limits[0]
    hulls = build_hulls(reduced.loss, row.weight)
    vertex = relax(hulls, row.bound)
    if vertex is None:
        return Outcome(None, blame=limit_blame(reduced.problem, row.name))
    choice = fill(hulls, vertex.choice, vertex.slack, vertex.taken)
    return Outcome(choice, {row.name: reduced.multiplier(row, vertex.slope)})


def fill(hulls: Hulls, choice: IntArray, room: int, taken: int) -> IntArray:
    """Further steps in order of slope wherever they still fit; a group whose step was skipped takes no later one."""
    steps = hulls.steps
    choice = choice.copy()
    candidates = taken + np.flatnonzero(steps.dcost[taken:] <= room)
    for q in candidates.tolist():
        group = steps.group[q]
        if steps.dcost[q] <= room and choice[group] == steps.before[q]:
            choice[group] = steps.after[q]
            room -= int(steps.dcost[q])
            if room == 0:
                break
    return choice


SOLVER = Solver("greedy", greedy)
