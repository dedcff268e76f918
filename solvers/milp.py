"""`milp`: HiGHS branch and bound, with losses rescaled and every gap set to zero.

HiGHS and its peers stop at absolute tolerances: with losses of 1e-7 they report 'optimal' over answers many times worse
than the best (research/05 section 2). So the losses are scaled twice by a power of two: to mean 1 for the relaxation,
then so that the relaxation's excess over the unlimited optimum is about 10^4.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from bitwright.core.problem import AT_LEAST, IntArray
from solvers import highs
from solvers.base import Deadline, Outcome, Solver
from solvers.infeasibility import alone, conflict
from solvers.linear_model import Program, build
from solvers.reduce import Reduced
from solvers.vector import vector

#: Excess of the relaxation after scaling, and the largest loss that HiGHS may then see.
EXCESS, LARGEST = 1e4, 1e8
#: How often a plan that breaks a row by rounding inside HiGHS is sent back with that row tightened.
REPAIRS = 3
#: Seconds for another plan when HiGHS has found none in its time.
RESCUE = 2.0


def milp(reduced: Reduced, deadline: Deadline, seed: int) -> Outcome:
    """Several limits, rules, ties and pair terms."""
    blame = alone(reduced)
    if blame is not None:
        return Outcome(None, blame=blame)
    program = build(reduced, reduced.rows)
    scale = _mean_scale(program)
    relaxed = highs.run(program.model, integral=False, seconds=deadline.left, seed=seed, cost_scale=scale)
    if relaxed.status == highs.INFEASIBLE:
        return _infeasible(reduced, deadline, seed)
    multipliers = _multipliers(reduced, program, relaxed, scale) if relaxed.status == highs.OPTIMAL else {}
    if relaxed.x is not None:
        scale = _excess_scale(program, float(program.model.cost @ relaxed.x), scale)
    return _branch(reduced, program, scale, multipliers, deadline, seed)


def _branch(
    reduced: Reduced, program: Program, scale: float, multipliers: dict[str, float], deadline: Deadline, seed: int
) -> Outcome:
    model, exact = program.model, True
    for _ in range(REPAIRS):
        answer = highs.run(model, integral=True, seconds=deadline.left, seed=seed, cost_scale=scale)
        if answer.status == highs.INFEASIBLE and exact:
            return _infeasible(reduced, deadline, seed)
        if answer.x is None:
            return _without_incumbent(reduced, multipliers, seed)
        choice = program.choice(answer.x, reduced.groups)
        broken = [r for r, row in enumerate(program.rows) if not row.holds(choice)]
        if not broken:
            done = answer.status == highs.OPTIMAL and exact
            return Outcome(choice, multipliers, proof="HiGHS branch and bound" if done else None)
        model, exact = _tightened(reduced, program, model, choice, broken), False
    return _without_incumbent(reduced, multipliers, seed)


def _without_incumbent(reduced: Reduced, multipliers: dict[str, float], seed: int) -> Outcome:
    """HiGHS ran out of time without a plan: the repaired plan of `vector`, and its multipliers where there are none."""
    if not reduced.rows:
        return Outcome(reduced.loss.argmin(axis=1), multipliers)
    other = vector(reduced, Deadline.after(RESCUE), seed)
    return Outcome(other.choice, multipliers or other.multipliers, info={"plan": "vector"})


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


def _mean_scale(program: Program) -> float:
    cost = np.abs(program.model.cost)
    mean = float(cost.mean())
    return 2.0 ** -math.frexp(mean)[1] if mean > 0 else 1.0


def _excess_scale(program: Program, excess: float, scale: float) -> float:
    largest = float(np.abs(program.model.cost).max())
    if not excess > 0 or not largest > 0:
        return scale
    return 2.0 ** min(math.frexp(EXCESS / excess)[1], math.frexp(LARGEST / largest)[1])


def _multipliers(reduced: Reduced, program: Program, answer: highs.Answer, scale: float) -> dict[str, float]:
    """Duals of the limit and rule rows: at most 0 for <=, at least 0 for >= in a minimisation; noise is cut at 0."""
    found = {}
    for r, row in enumerate(program.rows):
        dual = answer.duals[reduced.groups + r] / (scale * program.scale[r])
        value = max(0.0, dual if row.sense == AT_LEAST else -dual)
        found[row.name] = reduced.multiplier(row, value)
    return found


def _infeasible(reduced: Reduced, deadline: Deadline, seed: int) -> Outcome:
    def feasible(names: tuple[str, ...]) -> bool:
        rows = tuple(row for row in reduced.rows if row.name in names)
        program = build(reduced, rows)
        answer = highs.run(program.model, integral=True, seconds=deadline.left, seed=seed, cost_scale=0.0)
        return answer.status != highs.INFEASIBLE

    return Outcome(None, blame=conflict(reduced, feasible))


SOLVER = Solver("milp", milp)
