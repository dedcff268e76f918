"""`dp`: exact dynamic programming over a table of every total that the limit allows, one integer limit.

Costs are counted from each group's cheapest format and divided by their greatest common divisor first: real layer
sizes then need thousands of columns, not billions (research/05 section 7). The table shares nothing with the core
search of `hull`, which makes it a second proof of the same optimum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwright.core.errors import OutOfResources, Unsupported
from bitwright.core.problem import IntArray
from solvers.base import MANY_CELLS, Deadline, Outcome, Solver
from solvers.hulls import build_hulls, relax
from solvers.infeasibility import limit_blame
from solvers.reduce import Reduced, Row, divisor

#: Cells (groups x columns) of one byte that the table may have.
CELLS = 1 << 27
#: Columns from which a group takes milliseconds for each format.
MANY_COLUMNS = 1 << 18
#: Seconds of a cell to find the steps between costs, about.
READING = 6e-8


@dataclass(frozen=True, eq=False)
class Steps:
    """extra (g, k): cost above the group's cheapest, in units of `gcd`; -1 in a forbidden cell. room: what is left."""

    extra: IntArray
    room: int
    gcd: int

    @staticmethod
    def of(loss: NDArray[np.float64], row: Row) -> Steps | None:
        """None when even the cheapest formats do not fit."""
        allowed = np.isfinite(loss)
        least = np.where(allowed, row.weight, np.iinfo(np.int64).max).min(axis=1)
        room = row.bound - int(least.sum())
        if room < 0:
            return None
        extra = np.where(allowed, row.weight - least[:, None], -1)
        gcd = max(1, divisor(extra[allowed]))
        extra = np.where(allowed, extra // gcd, -1)
        # Nothing can use more room than the dearest formats do.
        return Steps(extra, min(room // gcd, int(extra.max(axis=1).sum())), gcd)


def dp(reduced: Reduced, deadline: Deadline, seed: int) -> Outcome:
    """One limit or none. Raises Unsupported where the table would be too large, OutOfResources past the time limit."""
    if not reduced.limits:
        return Outcome(reduced.loss.argmin(axis=1), info={"method": "least loss of each unit: there is no limit"})
    row = reduced.limits[0]
    if reduced.loss.size > MANY_CELLS and not deadline.fits(READING * reduced.loss.size):
        raise OutOfResources("time ran out before the table", hint="use solver 'hull'")
    steps = Steps.of(reduced.loss, row)
    if steps is None:
        return Outcome(None, blame=limit_blame(reduced.problem, row.name))
    columns = steps.room + 1
    if columns * reduced.groups > CELLS:
        raise Unsupported(
            "the costs are too fine for a table of every total",
            expected=f"at most {CELLS} cells (groups x totals)",
            got=f"{reduced.groups} x {columns} cells after division by the common divisor {steps.gcd}",
            hint="use solver 'hull'",
        )
    choice = table_choice(reduced.loss, steps, deadline)
    vertex = relax(build_hulls(reduced.loss, row.weight), row.bound)
    slope = 0.0 if vertex is None else vertex.slope
    return Outcome(
        choice,
        {row.name: reduced.multiplier(row, slope)},
        proof=f"dynamic programming over {columns} totals of {reduced.groups} groups",
        info={"columns": columns, "gcd": steps.gcd},
    )


def table_choice(loss: NDArray[np.float64], steps: Steps, deadline: Deadline) -> IntArray:
    """(g,) the choice of least loss with total extra <= room; among equals the lowest formats of the last groups."""
    groups, columns = len(loss), steps.room + 1
    taken = np.zeros((groups, columns), np.uint8)
    best = np.zeros(columns)
    for g in range(groups):
        late = OutOfResources("time ran out in the table", got=f"group {g} of {groups}", hint="use solver 'hull'")
        if deadline.passed:
            raise late
        after = np.full(columns, np.inf)
        for j in np.flatnonzero((steps.extra[g] >= 0) & (steps.extra[g] < columns)).tolist():
            if columns > MANY_COLUMNS and deadline.passed:
                raise late
            step = int(steps.extra[g, j])
            value = best[: columns - step] + loss[g, j]
            better = value < after[step:]
            after[step:][better] = value[better]
            taken[g, step:][better] = j
        best = after
    choice, left = np.zeros(groups, np.int64), steps.room
    for g in range(groups - 1, -1, -1):
        choice[g] = taken[g, left]
        left -= int(steps.extra[g, choice[g]])
    return choice


SOLVER = Solver("dp", dp)
