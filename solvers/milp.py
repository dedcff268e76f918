"""`milp`: HiGHS branch and bound, with losses rescaled and every gap set to zero.

HiGHS and its peers stop at absolute tolerances: with losses of 1e-7 they report 'optimal' over answers many times worse
than the best (research/05 section 2). So the losses are scaled twice by a power of two: to mean 1 for the relaxation,
then so that the relaxation's excess over the unlimited optimum is about 10^4.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bitwright.core.problem import AT_LEAST, IntArray
from solvers import highs
from solvers.base import Deadline, Outcome, Solver
from solvers.hull import hull
from solvers.infeasibility import alone
from solvers.linear_model import Program, build, building
from solvers.reduce import Reduced
from solvers.refute import refuted
from solvers.vector import planned

#: Excess of the relaxation after scaling, and the largest loss that HiGHS may then see.
EXCESS, LARGEST = 1e4, 1e8
#: How often a plan that breaks a row by rounding inside HiGHS is sent back with that row tightened.
REPAIRS = 3
#: Cells beyond which a first plan is made before HiGHS is asked; shares of the time for that plan, the relaxation (of
#: what is left) and the integer program (of what is then left; the rest is for another plan where HiGHS has none).
LARGE_CELLS, START, RELAXED, WHOLE = 4_096, 0.25, 0.8, 0.9


def milp(reduced: Reduced, deadline: Deadline, seed: int) -> Outcome:
    """Several limits, rules, ties and pair terms."""
    if alone(reduced) is not None:
        return refuted(reduced, deadline, seed)
    start, taken = None, building(reduced, len(reduced.rows))
    if reduced.loss.size > LARGE_CELLS:
        if not deadline.fits(taken, beside=START * deadline.seconds):
            return replace(_other_plan(reduced, deadline, seed), info={"plan": "without HiGHS"})
        start = _other_plan(reduced, deadline.within(START * deadline.seconds), seed)
    if not deadline.fits(taken):
        return replace(start or _other_plan(reduced, deadline, seed), info={"plan": "without HiGHS"})
    program = build(reduced, reduced.rows)
    scale = mean_scale(program)
    relaxed = highs.run_timed(
        program.model, integral=False, seconds=_seconds(program, deadline, RELAXED), seed=seed, cost_scale=scale
    )
    if relaxed.status == highs.INFEASIBLE:
        return refuted(reduced, deadline, seed)
    multipliers = row_multipliers(reduced, program, relaxed.duals, scale) if relaxed.status == highs.OPTIMAL else {}
    if relaxed.x is not None:
        scale = _excess_scale(program, float(program.model.cost @ relaxed.x), scale)
    found = _branch(reduced, program, scale, deadline, seed)
    if found.blame is not None:
        return found
    if found.choice is None or (start is not None and _better(reduced, start, found)):
        other = start or _other_plan(reduced, deadline, seed)
        return replace(other, multipliers=multipliers or other.multipliers, info={"plan": "without HiGHS"})
    return replace(found, multipliers=multipliers or (start.multipliers if start else {}))


def _branch(reduced: Reduced, program: Program, scale: float, deadline: Deadline, seed: int) -> Outcome:
    """HiGHS's plan in integers, proved when nothing had to be tightened; without a choice when it has none."""
    model, exact = program.model, True
    for _ in range(REPAIRS):
        seconds = _seconds(program, deadline, WHOLE)
        answer = highs.run_timed(model, integral=True, seconds=seconds, seed=seed, cost_scale=scale)
        if answer.status == highs.INFEASIBLE and exact:
            return refuted(reduced, deadline, seed)
        if answer.x is None:
            break
        choice = _undominated(reduced, program.choice(answer.x, reduced.groups))
        broken = [r for r, row in enumerate(program.rows) if not row.holds(choice)]
        if not broken:
            done = answer.status == highs.OPTIMAL and exact
            return Outcome(choice, proof="HiGHS branch and bound" if done else None)
        model, exact = _tightened(reduced, program, model, choice, broken), False
    return Outcome(None)


def _seconds(program: Program, deadline: Deadline, share: float) -> float:
    """So much of what is left, and what a step takes kept back where HiGHS runs in this process."""
    entries = len(program.model.value)
    step = highs.STEP * entries / highs.LARGE if entries <= highs.LARGE else 0.0
    return min(share * deadline.left, deadline.keeping(step).left)


def _undominated(reduced: Reduced, choice: IntArray) -> IntArray:
    """Each group in its cell of least loss among those that are no harder on any row; groups with pair terms stay.

    HiGHS does not see differences of loss below its tolerance, and calls a plan with either of such cells optimal.
    """
    each = np.arange(reduced.groups)
    serves = np.isfinite(reduced.loss)
    for row in reduced.rows:
        harder = (-1 if row.sense == AT_LEAST else 1) * (row.weight - row.weight[each, choice][:, None])
        serves &= harder <= 0
    serves[reduced.pairs.unit.ravel()] = False
    serves[each, choice] = True
    best: IntArray = np.where(serves, reduced.loss, np.inf).argmin(axis=1)
    return best


def _better(reduced: Reduced, start: Outcome, found: Outcome) -> bool:
    if start.choice is None or found.choice is None:
        return False
    return reduced.objective(start.choice) < reduced.objective(found.choice)


def _other_plan(reduced: Reduced, deadline: Deadline, seed: int) -> Outcome:
    """The plan of `hull` for one limit, else the repaired plan of `vector`, and their multipliers.

    Neither sees pair terms, so where there are any its proof is none.
    """
    if not reduced.rows:
        return Outcome(reduced.loss.argmin(axis=1))
    one = len(reduced.rows) == 1 and reduced.limits and not len(reduced.pairs)
    plan = hull(reduced, deadline, seed) if one else planned(reduced, deadline)
    return replace(plan, proof=None) if len(reduced.pairs) else plan


def _tightened(
    reduced: Reduced, program: Program, model: highs.Model, choice: IntArray, broken: list[int]
) -> highs.Model:
    low, high = model.low.copy(), model.high.copy()
    for r in broken:
        row, place = program.rows[r], reduced.groups + r
        excess = abs(row.total(choice) - row.bound) / program.scale[r]
        if row.sense == AT_LEAST:
            low[place] += 2 * excess
        else:
            high[place] -= 2 * excess
    return replace(model, low=low, high=high)


def mean_scale(program: Program) -> float:
    """Power of two that brings the mean magnitude of the losses to about 1."""
    cost = np.abs(program.model.cost)
    mean = float(cost.mean())
    return 2.0 ** -math.frexp(mean)[1] if mean > 0 else 1.0


def _excess_scale(program: Program, excess: float, scale: float) -> float:
    """The scale for branch and bound. Without an excess, as where no row binds, only the largest loss holds it back."""
    largest = float(np.abs(program.model.cost).max())
    if not largest > 0:
        return scale
    most = math.frexp(LARGEST / largest)[1]
    return 2.0 ** (min(math.frexp(EXCESS / excess)[1], most) if excess > 0 else most)


def row_multipliers(reduced: Reduced, program: Program, duals: NDArray[np.float64], scale: float) -> dict[str, float]:
    """Duals of the limit and rule rows: at most 0 for <=, at least 0 for >= in a minimisation; noise is cut at 0."""
    found = {}
    for r, row in enumerate(program.rows):
        dual = duals[reduced.groups + r] / (scale * program.scale[r])
        value = max(0.0, dual if row.sense == AT_LEAST else -dual)
        found[row.name] = reduced.multiplier(row, value)
    return found


SOLVER = Solver("milp", milp)
