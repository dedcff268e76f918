"""What is said of a problem that nothing satisfies: the blame, how far each limit must move, and a proof.

The proof is a vector of multipliers: when sum over groups of min (m . cost) exceeds m . limits, no choice meets all of
them, and anyone can recompute it (Farkas' lemma on the relaxation). Where only whole choices fail there is none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from bitwright.core.problem import AT_LEAST, IntArray
from solvers import highs
from solvers.base import Deadline, Outcome
from solvers.infeasibility import alone, conflict, limit_total, with_reachable
from solvers.linear_model import Program, build
from solvers.reduce import Reduced, merged_costs

#: Seconds for the explanation, beyond what is left of the caller's time: an unexplained refusal helps nobody.
LEAST_SECONDS = 0.05
#: A cell that costs this many times the median plays no part in a least total.
FAR = 1e6


def refuted(reduced: Reduced, deadline: Deadline, seed: int) -> Outcome:
    """The outcome of a problem that was proved infeasible (`alone`, or a complete search).

    Should a plan turn up on the way, the proof was wrong (a tolerance of the program that made it) and the plan is
    the outcome.
    """
    single = len(reduced.rows) == 1
    if single:
        return Outcome(None, blame=alone(reduced))

    def feasible(names: tuple[str, ...]) -> bool:
        rows = tuple(row for row in reduced.rows if row.name in names)
        return _solve(build(reduced, rows), deadline, seed).status != highs.INFEASIBLE

    blame = conflict(reduced, feasible)
    reachable, plan = _reachable(reduced, deadline, seed)
    if plan is not None:
        return Outcome(plan)
    blame = with_reachable(blame, reachable)
    return Outcome(None, ray(reduced, deadline, seed), blame=blame, reachable=reachable)


def _solve(program: Program, deadline: Deadline, seed: int, cost_scale: float = 0.0) -> highs.Answer:
    seconds = max(LEAST_SECONDS, 0.3 * deadline.left)
    return highs.run_timed(program.model, integral=True, seconds=seconds, seed=seed, cost_scale=cost_scale)


def _reachable(reduced: Reduced, deadline: Deadline, seed: int) -> tuple[dict[str, int | float], IntArray | None]:
    """By limit, the least total among choices that meet every other limit and rule; limits without one are left out.

    And a choice that meets this limit too, if there is one after all.
    """
    found: dict[str, int | float] = {}
    for row in reduced.limits:
        program = build(reduced, tuple(other for other in reduced.rows if other is not row))
        limit = next(limit for limit in reduced.problem.limits if limit.name == row.name)
        costs = merged_costs(reduced.problem, limit).astype(np.float64)
        # A few cells far beyond the others are cut off, so as not to set the scale; a plan with one says nothing.
        positive = costs[np.isfinite(reduced.loss) & (costs > 0)]
        cut = FAR * float(np.median(positive)) if positive.size else 1.0
        weight = np.minimum(costs[program.group, program.format], cut)
        # A power of two: whole costs stay exact sums, and an optimum is not called a plan with a gap of rounding.
        top = 2.0 ** math.frexp(float(weight.max(initial=0.0)))[1]
        cost = np.concatenate([weight / top, np.zeros(len(program.model.cost) - len(weight))])
        aimed = replace(program, model=replace(program.model, cost=cost))
        answer = _solve(aimed, deadline, seed, cost_scale=2.0**13)
        if answer.status != highs.OPTIMAL or answer.x is None:
            continue
        choice = program.choice(answer.x, reduced.groups)
        if costs[np.arange(reduced.groups), choice].max() >= cut:
            continue
        if all(other.holds(choice) for other in program.rows):
            if row.holds(choice):
                return {}, choice
            found[row.name] = limit_total(reduced, row, choice)
    return found, None


def ray(reduced: Reduced, deadline: Deadline, seed: int) -> Mapping[str, float]:
    """Multipliers of the relaxation's least summed violation; `certificate.impossible` says whether they prove it."""
    program = build(reduced, reduced.rows)
    model, count, columns = program.model, len(reduced.rows), len(program.group)
    if len(model.low) != reduced.groups + count:  # rows of pair terms: they exclude nothing
        return ray(replace(reduced, pairs=type(reduced.pairs)()), deadline, seed)
    first = reduced.groups
    low, high = model.low.copy(), model.high.copy()
    index, value, width = [model.index], [model.value], np.diff(model.start)
    cells = np.repeat(np.arange(len(width)), width)
    order = [cells]
    for r, row in enumerate(reduced.rows):
        span = np.abs(model.value[cells == first + r]).sum()
        bound = low[first + r] if row.sense == AT_LEAST else high[first + r]
        index.append(np.array([columns + r]))
        value.append(np.array([(1.0 if row.sense == AT_LEAST else -1.0) * (span + abs(bound) + 1.0)]))
        order.append(np.array([first + r]))
    by_row = np.argsort(np.concatenate(order), kind="stable")
    start = model.start + np.concatenate([np.zeros(first + 1, np.int64), np.arange(1, count + 1)])
    whole = highs.Model(
        np.concatenate([np.zeros(columns), np.ones(count)]), np.zeros(columns + count, bool), start,
        np.concatenate(index)[by_row], np.concatenate(value)[by_row], low, high,
    )  # fmt: skip
    seconds = max(LEAST_SECONDS, 0.3 * deadline.left)
    answer = highs.run_timed(whole, integral=False, seconds=seconds, seed=seed, cost_scale=1.0)
    if answer.status != highs.OPTIMAL:
        return {}
    found = {}
    for r, row in enumerate(reduced.rows):
        dual = answer.duals[first + r] / program.scale[r]
        found[row.name] = math.ldexp(max(0.0, dual if row.sense == AT_LEAST else -dual), row.shift)
    top = max(found.values())
    return {name: value / top if value > 1e-9 * top else 0.0 for name, value in found.items()} if top > 0 else {}
