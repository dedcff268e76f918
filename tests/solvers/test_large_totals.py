"""Totals up to the end of int64, and costs of which every choice pays nearly all, against Python's integers."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from functools import partial

import numpy as np
import pytest

from bitwright.core.bound import lagrangian
from bitwright.core.certificate import verify
from bitwright.core.problem import AT_LEAST, Limit, Problem, Resource, Rule, compact_bits
from solvers import solve as solve_within
from solvers.capabilities import capabilities, features
from solvers.catalog import SOLVERS
from solvers.frontier import frontier
from tests.solvers.instances import instance

solve = partial(solve_within, time_limit=60.0)
EXACT = [e.name for e in SOLVERS if capabilities(e).exact and not capabilities(e).only_covers and e.name != "dp"]
FOREIGN = {"ortools", "ortools-mathopt"}


def best_of(problem: Problem, cost: np.ndarray) -> Fraction | None:
    """Least loss of the choices within the one limit, whose costs are `cost`, over all units; exact."""
    found, limit = None, int(problem.limits[0].value)
    for picks in itertools.product(range(problem.k), repeat=problem.groups):
        choice = np.array(picks)[problem.group_index].tolist()
        cells = [float(problem.loss[i, j]) for i, j in enumerate(choice)]
        if math.inf not in cells and sum(int(cost[i, j]) for i, j in enumerate(choice)) <= limit:
            loss = sum(map(Fraction, cells), Fraction(0))
            found = loss if found is None else min(found, loss)
    return found


def agrees(name: str, problem: Problem, cost: np.ndarray) -> None:
    best, solution = best_of(problem, cost), solve(problem, name)
    assert verify(problem, solution.choice, solution.certificate).ok
    assert solution.feasible == (best is not None)
    if best is None or solution.loss is None:
        return
    assert solution.certificate.status == "optimal"
    room = Fraction(1, 10**11) * sum(map(Fraction, problem.loss[np.isfinite(problem.loss)].tolist()), Fraction(0))
    assert abs(Fraction(solution.loss) - best) <= room


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("compact", [False, True])
def test_totals_up_to_the_end_of_int64(name: str, compact: bool) -> None:
    """Regression: limits beyond 2^62 were cut to 2^62, and what needed more was called infeasible, by `brute` too."""
    rng = np.random.default_rng(4)
    for _ in range(4 if name in FOREIGN else 20):
        n, k = int(rng.integers(2, 6)), int(rng.integers(2, 4))
        size, rate = rng.integers(2**51, 2**52, n), np.sort(rng.integers(1, 256, k))
        unit = (2**63 - 1) // (int(size.sum()) * int(rate.max()))
        size = size * unit
        cost = np.multiply.outer(size, rate)
        resource = compact_bits(size, rate) if compact else Resource("bits", matrix=cost)
        low, high = (sum(map(int, part)) for part in (cost.min(axis=1), cost.max(axis=1)))
        assert 2**62 < high < 2**63
        limit = low + int((high - low) * rng.uniform(0.3, 1.0))
        agrees(name, Problem(rng.integers(0, 1000, (n, k)) / 8, (resource,), (Limit("bits", limit),)), cost)


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("compact", [False, True])
def test_costs_of_which_every_choice_pays_nearly_all(name: str, compact: bool) -> None:
    """Regression: the rounding of priced totals, 1e-12 of them, hid whole differences: plans of twice the least loss
    and more were called optimal."""
    rng = np.random.default_rng(5)
    for _ in range(4 if name in FOREIGN else 20):
        n, k = int(rng.integers(2, 6)), int(rng.integers(2, 4))
        size, rate = rng.integers(1, 9, n), 2**50 + np.sort(rng.integers(0, 100, k))
        cost = np.multiply.outer(size, rate) if compact else 2**55 + rng.integers(0, 100, (n, k))
        resource = compact_bits(size, rate) if compact else Resource("bits", matrix=cost)
        loss = np.exp(rng.normal(0, 3, (n, k)))
        loss[0, 0] = np.inf
        tie = rng.integers(0, n, n) if rng.random() < 0.5 else None
        low, high = (sum(map(int, part)) for part in (cost.min(axis=1), cost.max(axis=1)))
        limit = low + int(rng.integers(-1, high - low + 1))
        agrees(name, Problem(loss, (resource,), (Limit("bits", limit),), tie), cost)


@pytest.mark.parametrize("name", [e.name for e in SOLVERS if not capabilities(e).exact])
def test_no_baseline_calls_such_a_plan_optimal_either(name: str) -> None:
    rng = np.random.default_rng(6)
    for _ in range(10):
        cost = 2**55 + rng.integers(0, 100, (4, 3))
        limit = int(cost.min(axis=1).sum()) + int(rng.integers(0, 200))
        problem = Problem(np.exp(rng.normal(0, 3, (4, 3))), (Resource("b", matrix=cost),), (Limit("b", limit),))
        best, solution = best_of(problem, cost), solve(problem, name)
        assert best is not None
        assert solution.certificate.status != "optimal" or solution.loss == pytest.approx(float(best), rel=1e-11)


def test_what_every_choice_pays_changes_no_bound() -> None:
    """With it and without it, by fractions: subsets, two limits, ties and rules."""
    rng = np.random.default_rng(7)
    for _ in range(30):
        n, k, base = 5, 3, int(rng.choice([0, 2**20, 2**40]))
        cost, late = base + rng.integers(0, 100, (n, k)), rng.integers(0, 100, (n, k))
        loss = rng.integers(0, 100, (n, k)).astype(np.float64)
        loss[rng.integers(n), rng.integers(k)] = np.inf
        units = np.array([0, 2, 3])
        limits = Limit("b", n * base + 150), Limit("late", 99), Limit("b", 3 * base + 70, "some", units)
        rule = Rule(np.arange(3), np.array([1]), AT_LEAST, 1)
        tie = np.array([0, 1, 1, 2, 3]) if rng.random() < 0.5 else None
        problem = Problem(loss, (Resource("b", matrix=cost), Resource("late", matrix=late)), limits, tie, (rule,))
        prices = dict(zip(("b", "late", "b@some", "rule:0"), (rng.integers(0, 64, 4) / 16).tolist(), strict=True))
        m = {key: Fraction(value) for key, value in prices.items()}
        whole = -sum(m[limit.name] * int(limit.value) for limit in limits) + m["rule:0"]
        for group in range(problem.groups):
            values = []
            for j in range(k):
                members = np.flatnonzero(problem.group_index == group).tolist()
                if all(np.isfinite(loss[i, j]) for i in members):
                    priced = [
                        Fraction(loss[i, j]) + (m["b"] + m["b@some"] * (i in units)) * int(cost[i, j])
                        + m["late"] * int(late[i, j]) - m["rule:0"] * (i < 3 and j == 1)
                        for i in members
                    ]  # fmt: skip
                    values.append(sum(priced, Fraction(0)))
            whole += min(values)
        bound, scale = lagrangian(problem, prices)
        assert abs(Fraction(bound) - whole) <= Fraction(1, 10**12) * Fraction(scale)
        assert scale < 1e5  # nothing of 2^40 is left in it


@pytest.mark.parametrize("compact", [False, True])
def test_the_frontier_is_in_the_units_of_the_limit(compact: bool) -> None:
    given = instance("hetero", 40, 4, 0)
    size, rate = given.resources[0].size, given.resources[0].rate
    assert size is not None
    assert rate is not None
    rate = rate + 2**20 if compact else rate
    resource = compact_bits(size, rate) if compact else Resource("bits", matrix=2**50 + np.multiply.outer(size, rate))
    paid = 2**20 * int(size.sum()) if compact else 40 * 2**50
    plain, moved = frontier(given), frontier(Problem(given.loss, (resource,)))
    assert moved.cost.tolist() == [cost + paid for cost in plain.cost.tolist()]
    assert moved.loss == pytest.approx(plain.loss, rel=1e-12)
    limit = int(given.limits[0].value)
    assert moved.at(limit + paid).loss == plain.at(limit).loss
    assert moved.at(int(plain.cost[0]) + paid - 1).certificate.smallest_limit == {"bits": int(plain.cost[0]) + paid}


def test_a_limit_moved_after_what_is_paid_was_taken_off() -> None:
    cost = 2**50 + np.array([[1, 2], [1, 2]])
    problem = Problem(np.array([[4.0, 1.0], [3.0, 1.0]]), (Resource("b", matrix=cost),), (Limit("b", 2**51 + 2),))
    assert problem.centred.limits[0].value == 0
    assert problem.with_limit("b", 2**51 + 3).centred.limits[0].value == 1
    assert features(problem).limits == 1
