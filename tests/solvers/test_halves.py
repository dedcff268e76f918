"""Slopes that are equal or nearly so and costs without a common divisor: no bound cuts, no totals repeat."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from bitwright.core.certificate import verify
from bitwright.core.problem import Limit, Problem, Resource
from solvers import native, solve
from tests.solvers.instances import instance

pytestmark = pytest.mark.skipif(native.library() is None, reason="the native library is not built")


def all_choices(loss: np.ndarray, cost: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(loss, cost) of every choice of a few rows."""
    total, spent = np.zeros(1), np.zeros(1, np.int64)
    for row, price in zip(loss, cost, strict=True):
        total, spent = (total[:, None] + row).ravel(), (spent[:, None] + price).ravel()
    return total, spent


def least(loss: np.ndarray, cost: np.ndarray, limit: int) -> float:
    """The least loss of all choices: those of either half of the rows, sorted, and the best partner of each."""
    half = len(loss) // 2
    a, spent_a = all_choices(loss[:half], cost[:half])
    b, spent_b = all_choices(loss[half:], cost[half:])
    order = np.argsort(spent_b, kind="stable")
    best = np.minimum.accumulate(b[order])
    fits = np.searchsorted(spent_b[order], limit - spent_a, side="right") - 1
    return float((a + best[fits])[fits >= 0].min())


def near(seed: int, n: int, k: int, noise: float, spread: float) -> tuple[np.ndarray, np.ndarray, int]:
    """Loss, cost and a limit: slopes equal but for a share `noise`; spread: of the sizes' logarithm."""
    rng = np.random.default_rng([seed, n, k])
    size = np.rint(np.exp(rng.normal(13, spread, n))).astype(np.int64)
    cost = size[:, None] * np.sort(rng.choice(np.arange(20, 140), k, replace=False))
    loss = (cost.max() - cost) * (1 + noise * rng.normal(size=(n, k)))
    low, high = int(cost.min(axis=1).sum()), int(cost.max(axis=1).sum())
    return loss, cost, int(low + rng.uniform(0.1, 0.9) * (high - low))


@pytest.mark.parametrize("spread", [0.5, 2.5])
@pytest.mark.parametrize("noise", [0.0, 1e-7, 1e-4, 1e-2])
@pytest.mark.parametrize(("n", "k"), [(30, 2), (20, 3), (14, 5)])
def test_equal_to_all_choices(n: int, k: int, noise: float, spread: float) -> None:
    for seed in range(4):
        loss, cost, limit = near(seed, n, k, noise, spread)
        given = Problem(loss, (Resource("bytes", matrix=cost),), (Limit("bytes", limit),))
        solution = solve(given, "hull")
        assert verify(given, solution.choice, solution.certificate).ok
        assert solution.certificate.status == "optimal"
        assert solution.loss == pytest.approx(least(loss, cost, limit), rel=2e-12)


@pytest.mark.parametrize("k", [4, 12])
def test_slopes_equal_but_for_a_thousandth_are_proved(k: int) -> None:
    """n = 45,000: a vertex that splits the largest unit (seed 0, k = 4) has a gap that no filling closes; others do."""
    for seed in range(2):
        given = instance("similar", 45_000, k, seed)
        solution = solve(given, "hull")
        assert verify(given, solution.choice, solution.certificate).ok
        assert solution.certificate.status == "optimal"
        assert (solution.certificate.relative_gap or 0.0) < 2e-11


def test_tails_of_long_tables_are_proved() -> None:
    given = instance("tails", 45_000, 8, 2)
    assert solve(given, "hull").certificate.status == "optimal"


def test_a_larger_limit_never_costs_more() -> None:
    loss, cost, limit = near(7, 200, 4, 1e-5, 1.0)
    losses = []
    for value in range(limit, limit + 40 * 997, 997):
        given = Problem(loss, (Resource("bytes", matrix=cost),), (Limit("bytes", value),))
        losses.append(float(solve(given, "hull").loss or 0))
    assert all(b <= a * (1 + 2e-12) for a, b in pairwise(losses))


@pytest.mark.parametrize(("family", "k"), [("oddsize", 4), ("tails", 4), ("tails", 12)])
def test_equal_slopes_are_filled_before_they_are_branched_on(family: str, k: int) -> None:
    """Regression: every deviation costs nothing, so no budget of penalties cut anything: 25 to 180 ms, now 2 to 6."""
    one = instance(family, 224, k, 1)
    resource = one.resources[0]
    loss = resource.size[:, None] * (20.0 - resource.rate / 16)
    given = Problem(loss / loss.sum(), one.resources, one.limits)
    solution = solve(given, "hull")
    assert solution.certificate.status == "optimal"


@pytest.mark.parametrize("seed", range(3))
def test_a_few_units_of_equal_slopes_are_proved_whatever_their_number_of_formats(seed: int) -> None:
    """No penalty is a budget here: what counts is how few choices there are, of formats that exclude each other."""
    loss, cost, limit = near(seed, 8, 12, 0.0, 1.5)
    solution = solve(Problem(loss, (Resource("bytes", matrix=cost),), (Limit("bytes", limit),)), "hull")
    assert solution.certificate.status == "optimal"
    assert solution.loss <= least(loss, cost, limit) * (1 + 1e-12)
    assert solution.info["states"] <= 2 * 12**4
