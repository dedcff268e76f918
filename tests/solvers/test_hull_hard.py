"""`hull` on the families of research/05 and on the shapes that break knapsack codes, against HiGHS and by proof."""

from __future__ import annotations

import numpy as np
import pytest

from bitwright.core.certificate import verify
from bitwright.core.problem import Limit, Problem, Resource, compact_bits
from solvers import native, solve
from tests.solvers.cost_tables import limit_at, proved
from tests.solvers.instances import instance

EASY = ("layers", "experts", "groups", "hetero", "oddsize")
PROVED = [(family, n, k) for family in EASY for n, k in ((224, 4), (224, 8), (2000, 4))]


def problem(loss: object, cost: object, limit: float) -> Problem:
    costs = np.asarray(cost)
    return Problem(np.asarray(loss, np.float64), (Resource("bytes", matrix=costs),), (Limit("bytes", limit),))


@pytest.mark.parametrize(("family", "n", "k"), PROVED)
@pytest.mark.parametrize("seed", [0, 1])
def test_families_are_proved(family: str, n: int, k: int, seed: int) -> None:
    given = instance(family, n, k, seed)
    solution = solve(given, "hull")
    assert verify(given, solution.choice, solution.certificate).ok
    assert solution.certificate.status == "optimal"
    assert solution.certificate.relative_gap < 0.02


@pytest.mark.parametrize(
    ("family", "n", "k"), [("layers", 224, 4), ("hetero", 224, 4), ("oddsize", 100, 8), ("experts", 500, 8)]
)
def test_families_equal_highs(family: str, n: int, k: int) -> None:
    given = instance(family, n, k, 5)
    ours, highs = solve(given, "hull"), solve(given, "milp", time_limit=60)
    assert ours.certificate.status == highs.certificate.status == "optimal"
    assert ours.loss == pytest.approx(highs.loss, rel=1e-9)
    assert ours.certificate.lower_bound == pytest.approx(highs.certificate.lower_bound, rel=1e-7)


@pytest.mark.parametrize("n", [224, 2000])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nearly_equal_slopes_end_with_a_tiny_gap(n: int, dtype: type) -> None:
    given = instance("correlated", n, 4, 0, dtype=dtype)
    solution = solve(given, "hull")
    assert verify(given, solution.choice, solution.certificate).ok
    assert solution.certificate.relative_gap <= 1e-6


@pytest.mark.skipif(native.library() is None, reason="the native library is not built")
@pytest.mark.parametrize("seed", [2, 4])
def test_nearly_equal_slopes_are_filled_to_the_last_unit(seed: int) -> None:
    """Costs without a common divisor and a critical step of the largest unit: deviations of small units make it up."""
    given = instance("correlated", 45_000, 8, seed)
    solution = solve(given, "hull")
    assert verify(given, solution.choice, solution.certificate).ok
    assert solution.certificate.status == "optimal"
    assert solution.certificate.gap == 0.0


@pytest.mark.skipif(native.library() is None, reason="the native library is not built")
def test_many_units_of_one_size_are_proved_by_how_many_take_each_format() -> None:
    """Such counts were looked at up to 8,192 units only: of 45,000 with scales of their own for each format the plan
    was the best one, but stated with a gap of 3.8e-5."""
    rng = np.random.default_rng(0)
    rate, overhead = np.array([2.5625, 3.4375, 4.5, 5.5, 6.5625, 8.5, 10, 16]), np.array([1, 2, 1, 4, 2, 1, 2, 4])
    size = 4096 * 11008
    cost = np.tile((size * rate / 8 + size / 64 * overhead).astype(np.int64), (45_000, 1))
    proved(size * 4.0**-rate * np.exp(0.02 * rng.normal(size=(45_000, 1))), cost, limit_at(cost, 0.5))


@pytest.mark.parametrize("power", [-40, 40])
def test_the_choice_does_not_depend_on_the_unit_of_loss(power: int) -> None:
    given = instance("hetero", 224, 8, 3)
    scaled = Problem(np.ldexp(given.loss, power), given.resources, given.limits)
    assert np.array_equal(solve(given, "hull").choice, solve(scaled, "hull").choice)


@pytest.mark.parametrize("bits", [2.0, 2.01, 7.99, 8.0, 9.0])
def test_limits_at_the_ends(bits: float) -> None:
    solution = solve(instance("oddsize", 224, 4, 0, bits=bits), "hull")
    assert solution.certificate.status == "optimal"
    if bits == 2.0:
        assert (solution.choice == 0).all()


def test_loose_limit_costs_nothing() -> None:
    given = instance("layers", 100, 4, 0, bits=100)
    solution = solve(given, "hull")
    assert solution.certificate.multipliers == {"bits": 0.0}
    assert np.array_equal(solution.choice, given.loss.argmin(axis=1))


def test_equal_rows() -> None:
    """Every slope equal: the critical step is shared by all units and the relaxation is attained."""
    given = problem([[4.0, 2.0, 1.0]] * 50, [[1, 2, 3]] * 50, 120)
    solution = solve(given, "hull")
    assert solution.certificate.status == "optimal"
    assert solution.loss == 50 * 4 - 50 * 2 - 20


def test_all_cells_equal() -> None:
    assert solve(problem(np.ones((9, 4)), np.ones((9, 4), np.int64), 9), "hull").loss == 9.0


def test_zero_losses_and_zero_sizes() -> None:
    given = Problem(np.zeros((5, 3)), (compact_bits([0, 3, 0, 2, 1], [2, 3, 4]),), (Limit("bits", 12),))
    solution = solve(given, "hull")
    assert solution.loss == 0.0
    assert solution.certificate.status == "optimal"


def test_zero_size_unit_takes_its_best_format_for_nothing() -> None:
    given = Problem(np.array([[5.0, 1.0], [5.0, 1.0]]), (compact_bits([0, 4], [1, 2]),), (Limit("bits", 4),))
    assert solve(given, "hull").choice.tolist() == [1, 0]


def test_dearer_may_be_worse() -> None:
    given = problem([[1.0, 3.0, 0.5], [2.0, 9.0, 1.9]], [[1, 2, 3], [3, 2, 1]], 4)
    solution = solve(given, "hull")
    assert solution.choice.tolist() == [2, 2]


def test_forbidden_cells_are_never_taken() -> None:
    given = problem([[np.inf, 3.0, np.inf], [4.0, np.inf, 1.0]], [[1, 2, 3], [1, 2, 3]], 4)
    assert solve(given, "hull").choice.tolist() == [1, 0]


def test_losses_far_apart() -> None:
    given = problem([[1e300, 1e-300], [1e-10, 1e-12]], [[1, 2], [1, 2]], 3)
    assert solve(given, "hull").choice.tolist() == [1, 0]


def test_huge_costs_stay_exact() -> None:
    unit = 2**59
    given = problem([[3.0, 1.0], [3.0, 1.0 - 1e-9]], [[unit, 2 * unit - 1], [unit, 2 * unit]], 3 * unit - 1)
    assert solve(given, "hull").choice.tolist() == [1, 0]


def test_negative_losses() -> None:
    assert solve(problem([[-1.0, -5.0], [-2.0, -3.0]], [[0, 5], [0, 5]], 5), "hull").loss == -7.0


def test_float_costs_at_the_limit() -> None:
    """0.1 + 0.2 is not 0.3 in binary: the checker forgives the last bit, and so does the solver."""
    given = problem([[3.0, 1.0], [3.0, 1.0]], [[0.05, 0.1], [0.1, 0.2]], 0.3)
    assert solve(given, "hull").choice.tolist() == [1, 1]


def test_a_limit_over_some_units() -> None:
    loss = np.array([[3.0, 1.0]] * 4)
    cost = Resource("bytes", matrix=np.array([[1, 2]] * 4))
    given = Problem(loss, (cost,), (Limit("bytes", 3, "front", np.array([0, 1])),))
    solution = solve(given)
    assert solution.solver == "hull"
    assert solution.loss == 3.0 + 1.0 + 1.0 + 1.0


def test_sixty_four_formats() -> None:
    rng = np.random.default_rng(0)
    cost = np.sort(rng.integers(1, 10**6, (300, 64)), axis=1)
    given = problem(np.exp(-cost / 2e5) * rng.random((300, 1)), cost, int(cost.mean() * 300 // 2))
    solution = solve(given, "hull")
    assert solution.certificate.status == "optimal"
    assert verify(given, solution.choice, solution.certificate).ok


def test_a_multiplier_beyond_float64_is_left_out() -> None:
    """Losses near the end of float64 over steps of one in totals of 2^52: the plan stands, with a weaker bound."""
    given = problem([[1e303, 5e302]] * 3, [[2**50, 2**50 + 1]] * 3, 3 * 2**50 + 2)
    solution = solve(given, "hull")
    assert solution.loss == pytest.approx(2e303)
    assert verify(given, solution.choice, solution.certificate).ok
