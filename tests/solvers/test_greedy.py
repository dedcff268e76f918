"""The baselines with every limit from the least to the greatest: more room is never worse."""

from __future__ import annotations

import numpy as np
import pytest

from bitwright.core.problem import Limit, Problem, Resource, compact_bits
from solvers import solve
from tests.solvers.instances import RATES


def every_limit(loss: np.ndarray, cost: np.ndarray) -> list[Problem]:
    low, high = int(cost.min(axis=1).sum()), int(cost.max(axis=1).sum())
    first = Problem(loss, (Resource("bytes", matrix=cost),), (Limit("bytes", low),))
    return [first.with_limit("bytes", value) for value in range(low, high + 1)]


def test_a_step_that_comes_within_reach_shuts_nothing_better_out() -> None:
    """One step of 9 that saves 9.09, three of 5 that save 5 each: with 15 and with 16 to spend."""
    loss = np.array([[9.09, 0.0], [5.0, 0.0], [5.0, 0.0], [5.0, 0.0]])
    cost = np.array([[0, 9], [0, 5], [0, 5], [0, 5]])
    losses = [solve(problem, "greedy").loss for problem in every_limit(loss, cost)]
    assert (np.diff(losses) <= 0).all()


@pytest.mark.parametrize("name", ["greedy", "positional"])
def test_more_room_is_never_worse(name: str) -> None:
    rng = np.random.default_rng(26)
    for index in range(12):
        n, k = int(rng.integers(1, 10)), int(rng.integers(2, 5))
        cost = np.sort(rng.integers(1, 40, (n, k)), axis=1)
        # Every third has slopes that are nearly equal: there the order of the steps decides.
        loss = rng.random((n, k)) * 10 if index % 3 else 50.0 - cost * (1 + 0.02 * rng.random((n, k)))
        losses = [solve(problem, name).loss for problem in every_limit(loss, cost)]
        assert (np.diff(losses) <= 1e-9).all(), index


@pytest.mark.parametrize("slope", [0.1, 0.37, 1 / 3])
def test_steps_of_equal_slopes_keep_their_order_in_their_unit(slope: float) -> None:
    """Regression: a small second step came before the first one, and the plan overran the limit."""
    rate = np.array(RATES[8])
    for seed in range(8):
        size = np.random.default_rng(seed).integers(1, 1000, 8)
        loss = slope * np.multiply.outer(size, rate.max() - rate)
        given = Problem(loss, (compact_bits(size, rate, 16),), (Limit("bits", int(size.sum()) * 80),))
        solution = solve(given, "greedy")
        assert solution.loss is not None
        assert solution.loss <= slope * size.sum() * (rate.max() - rate[4])  # uniform at 72 of 80
