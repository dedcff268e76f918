"""`closed-form` where its law holds, where it does not, and its honest gap."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from bitwright.core.certificate import verify
from bitwright.core.problem import Limit, Problem, Resource, compact_bits
from solvers import solve
from solvers.base import Deadline
from solvers.closed_form import Law, closed_form
from solvers.reduce import reduce_problem
from solvers.water_filling import fill
from tests.solvers.instances import instance


def lawful(n: int, seed: int, widths: list[int], mean: float) -> tuple[Problem, np.ndarray, np.ndarray]:
    """loss = c 4^-b exactly, uneven sizes."""
    rng = np.random.default_rng(seed)
    size = rng.integers(100, 5000, n)
    c = size * np.exp(rng.normal(0, 1.5, n))
    loss = c[:, None] * 4.0 ** -np.array(widths, float)
    return Problem(loss, (compact_bits(size, widths),), (Limit("bits", int(mean * size.sum())),)), c, size


def test_the_fit_recovers_the_law() -> None:
    problem, c, size = lawful(50, 0, [2, 3, 4, 8], 4.0)
    law = Law.fit(problem.loss, problem.resources[0].costs().astype(float))
    assert law.size == pytest.approx(size, rel=1e-9)
    assert law.top == pytest.approx(np.log2(c), rel=1e-9)


def test_the_multiplier_is_the_marginal_loss_of_the_continuous_optimum() -> None:
    problem, c, size = lawful(40, 1, list(range(1, 13)), 5.0)
    total = float(problem.limits[0].value)
    solution = solve(problem, "closed-form")
    here, there = (float(c @ 4.0 ** -fill(c, size, total + d, 1, 12).bits) for d in (-0.5, 0.5))
    assert solution.certificate.multipliers["bits"] == pytest.approx(here - there, rel=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_close_to_the_optimum_where_the_law_holds(seed: int) -> None:
    problem, _, _ = lawful(300, seed, [2, 3, 4, 5, 6, 8], 4.1)
    mine, best = solve(problem, "closed-form"), solve(problem, "hull")
    assert verify(problem, mine.choice, mine.certificate).ok
    assert best.loss <= mine.loss <= 1.02 * best.loss
    assert mine.certificate.lower_bound <= best.loss
    assert mine.certificate.lower_bound >= 0.9 * best.loss


@pytest.mark.parametrize("family", ["layers", "hetero", "oddsize", "correlated"])
def test_noisy_tables_give_a_verified_plan_with_a_gap(family: str) -> None:
    problem = instance(family, 500, 8, 3)
    solution = solve(problem, "closed-form")
    assert verify(problem, solution.choice, solution.certificate).ok
    assert solution.certificate.status == "bounded"
    assert solution.loss <= 1.25 * solve(problem, "hull").loss


def test_rows_without_a_falling_law_still_get_what_they_can_use() -> None:
    loss = np.array([[0.0, -1.0, -5.0], [3.0, 4.0, 2.0], [1.0, np.inf, np.inf]])
    problem = Problem(loss, (compact_bits([1, 1, 1], [1, 2, 3]),), (Limit("bits", 7),))
    solution = solve(problem, "closed-form")
    assert solution.choice.tolist() == [2, 2, 0]


def test_a_clock_that_ran_out_leaves_a_feasible_plan() -> None:
    reduced = reduce_problem(instance("oddsize", 200, 4, 0))
    outcome = closed_form(reduced, Deadline(1.0, 0.0), 0)
    assert outcome.choice is not None
    assert reduced.limits[0].holds(outcome.choice)


def test_units_and_formats_that_tie_go_by_what_they_hold() -> None:
    """Regression: among equal cells the first unit or format went first, and another order gave a loss of 4 for 0."""
    cases = [(np.array([[3.0, 0, 6, 3], [7, 4, 7, 0], [5, 0, 2, 0]]), [0, 128, 128], [47, 62, 77, 78], 18816)]
    rng = np.random.default_rng(0)
    for _ in range(200):
        n, k = int(rng.integers(2, 6)), int(rng.integers(2, 5))
        size, rate = rng.integers(0, 3, n), np.sort(rng.integers(0, 5, k))
        limit = int(size.sum() * rate[0] + rng.integers(0, 8))
        cases.append((rng.integers(0, 8, (n, k)).astype(np.float64), size.tolist(), rate.tolist(), limit))
    for loss, size, rate, limit in cases:
        cost = np.multiply.outer(size, rate)
        for units, formats in zip(
            itertools.permutations(range(len(loss))), itertools.permutations(range(len(rate))), strict=False
        ):
            order = np.ix_(units, formats)
            one, other = (
                Problem(table, (Resource("b", matrix=costs),), (Limit("b", limit),))
                for table, costs in ((loss, cost), (loss[order], cost[order]))
            )
            assert solve(one, "closed-form").loss == solve(other, "closed-form").loss
