"""`vector`: several limits and rules at any size: a vector of multipliers, its certificate, and a repaired plan."""

from __future__ import annotations

import time

from solvers.base import LATE, Deadline, Outcome, Solver
from solvers.dual import Rows, maximise
from solvers.dual_exact import polished
from solvers.infeasibility import alone
from solvers.one_thread import one_thread
from solvers.reduce import Reduced
from solvers.repair import STATES, repair
from solvers.two_halves import improved

#: Shares of what is left for the smoothed ascent, and then for the exact one; the rest is for the plan.
SMOOTHED, POLISH = 0.5, 0.5
#: States of the beam search for a first plan, mostly near enough for the proof; then for another, where it was not.
STAGES = (300, STATES)
#: What a first pass of the ascent, the start of the exact one, a repair and a search by halves take at least, over what
#: it takes to make the rows.
ASCENT, POLISHED, REPAIR, MEETING = 2.5, 1.5, 1.5, 1.0
#: Seconds of a cell in each limit or rule to make the rows, about.
READING = 1e-7


@one_thread()
def vector(reduced: Reduced, deadline: Deadline, seed: int) -> Outcome:
    """Proved where few groups matter for what is left of the gap; elsewhere the gap says how good the plan is.

    No plan where the repair finds none.
    """
    blame = alone(reduced)
    if blame is not None:
        return Outcome(None, blame=blame)
    return planned(reduced, deadline)


@one_thread()
def planned(reduced: Reduced, deadline: Deadline) -> Outcome:
    """The same where every limit and rule can be met alone: also the plan at hand of solvers that ask a library."""
    if not reduced.rows:
        return Outcome(reduced.loss.argmin(axis=1))
    late = Outcome(None, info={"stopped": LATE})
    if not deadline.fits(READING * reduced.loss.size * len(reduced.rows)):
        return late
    begin = time.monotonic()
    rows = Rows.of(reduced)
    reading = time.monotonic() - begin
    if not ASCENT * reading < deadline.left:
        return late
    dual = maximise(reduced, rows, deadline.within(SMOOTHED * deadline.left))
    if POLISHED * reading < deadline.left:
        dual = polished(reduced, rows, dual, deadline.within(POLISH * deadline.left))
    choice, proof = None, None
    for states in STAGES:
        if not REPAIR * reading < deadline.left:
            break
        other = repair(reduced, rows, dual.multipliers, deadline, states)
        if other is None or (choice is not None and not reduced.objective(other) < reduced.objective(choice)):
            continue
        choice = other
        if not MEETING * reading < deadline.left:
            break
        choice, proof = improved(reduced, rows, dual.multipliers, choice, deadline)
        if proof is not None:
            break
    multipliers = {
        row.name: reduced.multiplier(row, float(value / scale))
        for row, value, scale in zip(reduced.rows, dual.multipliers, rows.scale, strict=True)
    }
    return Outcome(choice, multipliers, proof=proof, info={"passes": dual.passes})


SOLVER = Solver("vector", vector)
