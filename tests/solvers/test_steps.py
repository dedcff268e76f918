"""Costs that are all near multiples of one number: what matters is how many such steps a plan takes."""

from __future__ import annotations

import numpy as np
import pytest

from bitwright.core.certificate import verify
from solvers import native, solve
from tests.solvers.cost_tables import limit_at, losses, problem, proved
from tests.solvers.instances import RATES
from tests.solvers.test_halves import least

pytestmark = pytest.mark.skipif(native.library() is None, reason="the native library is not built")

KINDS = ("percent", "millionth", "noisy", "off", "two")
SLOPES = ("equal", "near", "two", "alike", "fall")


def sizes(kind: str, n: int, rng: np.random.Generator) -> np.ndarray:
    """Within 1 %, within 1e-6; near multiples of 4 million, of 2^24; half of them a thousand times the others."""
    if kind == "percent":
        return rng.integers(10_000_000, 10_100_000, n)
    if kind == "millionth":
        return rng.integers(1_000_000_000, 1_000_001_000, n)
    if kind == "noisy":
        return 4_000_000 * rng.integers(1, 40, n) + rng.integers(0, 50, n)
    if kind == "off":
        return 2**24 * rng.integers(1, 12, n) + 16 * rng.integers(0, 8, n)
    return np.where(rng.random(n) < 0.5, rng.integers(1_000_000, 1_000_100, n), rng.integers(1000, 1100, n))


def stepped(kind: str, slopes: str, n: int, k: int, share: float, seed: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Loss, cost and a limit at a share of the range."""
    rng = np.random.default_rng([seed, n, k, KINDS.index(kind), SLOPES.index(slopes)])
    rate, size = np.array(RATES[k]), sizes(kind, n, rng)
    cost = size[:, None] * rate + rng.integers(0, 2) * rng.integers(0, 4, (n, k))
    return losses(slopes, size, rate, rng), cost, limit_at(cost, share)


@pytest.mark.parametrize("slopes", SLOPES)
@pytest.mark.parametrize("kind", KINDS)
def test_equal_to_all_choices(kind: str, slopes: str) -> None:
    for seed, (n, k, share) in enumerate([(30, 2, 0.5), (20, 3, 0.05), (14, 5, 0.9), (14, 4, 0.3)]):
        loss, cost, limit = stepped(kind, slopes, n, k, share, seed)
        assert proved(loss, cost, limit) == pytest.approx(least(loss, cost, limit), rel=2e-12)


@pytest.mark.parametrize(
    ("kind", "slopes", "n", "k", "share"),
    [
        ("percent", "two", 1267, 2, 0.99),
        ("millionth", "near", 373, 6, 0.99),
        ("millionth", "near", 1459, 6, 0.9),
        ("noisy", "equal", 95, 8, 0.5),
        ("noisy", "two", 881, 5, 0.5),
        ("off", "near", 565, 5, 0.5),
        ("two", "equal", 127, 6, 0.5),
    ],
)
def test_the_number_of_steps_closes_the_gap(kind: str, slopes: str, n: int, k: int, share: float) -> None:
    """Such problems ended with gaps of 5e-6 to 1e-2 after a second and more."""
    for seed in range(2):
        proved(*stepped(kind, slopes, n, k, share, seed))


@pytest.mark.parametrize("seed", range(3))
def test_a_table_of_one_step_ends(seed: int) -> None:
    """Where a plan takes one step more or less, the window of the table of totals did not grow, and it never ended."""
    loss, cost, limit = stepped("millionth", "equal", 457, 6, 0.001, seed)
    given = problem(loss, cost, limit)
    solution = solve(given, "hull")
    assert verify(given, solution.choice, solution.certificate).ok
