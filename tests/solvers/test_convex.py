"""`convex`: the optimum of water-filling under one limit, the optimality conditions under several, honest plans."""

from __future__ import annotations

import numpy as np
import pytest

from bitwright.core.certificate import verify
from bitwright.core.errors import Infeasible, InvalidProblem
from bitwright.core.problem import Limit, Problem, Resource
from solvers import solve
from solvers.convex import continuous_bits, rounded_bits
from solvers.water_filling import fill
from tests.solvers.test_several_limits import both_bind


def units(n: int, seed: int, spread: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([seed, n])
    return np.exp(rng.normal(-8, spread, n)), np.exp(rng.normal(3, 1, n))


def test_the_golden_example() -> None:
    found = continuous_bits([1.0, 4.0, 16.0, 64.0], [np.ones(4)], [8.0])
    assert found.bits == pytest.approx([0.5, 1.5, 2.5, 3.5], abs=1e-6)
    assert found.loss == pytest.approx(2.0, abs=1e-9)
    assert found.prices == pytest.approx([np.log(4) * 0.5], rel=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_one_limit_is_reverse_water_filling(seed: int) -> None:
    c, s = units(60, seed)
    found, water = continuous_bits(c, [s], [3 * s.sum()], 0, 8), fill(c, s, 3 * s.sum(), 0, 8)
    assert found.bits == pytest.approx(water.bits, abs=1e-5)


def test_two_binding_limits_meet_the_optimality_conditions() -> None:
    """Inside the box, ln 4 c 4^-b is the priced use (stationarity); both limits are used up; loss per use is equal."""
    c, s = units(60, 5)
    late = s * np.random.default_rng(1).uniform(0.2, 3.0, 60)
    one = fill(c, s, 3 * s.sum(), 0, 8).bits
    use, limits = np.stack([s, late]), np.array([3 * s.sum(), 0.97 * late @ one])
    found = continuous_bits(c, use, limits, 0, 8)
    assert (found.prices > 0).all()
    assert use @ found.bits == pytest.approx(limits, rel=1e-7)
    inside = (found.bits > 1e-4) & (found.bits < 8 - 1e-4)
    assert inside.sum() > 20
    assert np.log(4) * c[inside] * 4.0 ** -found.bits[inside] == pytest.approx(found.prices @ use[:, inside], rel=1e-4)
    whole = rounded_bits(c, use, limits, found.bits, 8)
    assert (use @ whole <= limits * (1 + 1e-9)).all()
    assert found.loss <= (c * 4.0**-whole).sum() <= 1.25 * found.loss


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(InvalidProblem):
        continuous_bits([1.0, -1.0], [np.ones(2)], [3.0])
    with pytest.raises(InvalidProblem):
        continuous_bits([1.0, 1.0], np.ones(2), [3.0])
    with pytest.raises(InvalidProblem):
        continuous_bits([1.0, 1.0], [np.ones(2)], [np.nan])
    with pytest.raises(Infeasible) as caught:
        continuous_bits([1.0, 1.0], [np.ones(2)], [3.0], lo=2.0)
    assert caught.value.extra["smallest_limit"] == 4.0


def test_two_limits_of_a_table_give_the_bound_of_the_relaxation() -> None:
    given = both_bind("hetero", 150, 4, 1)
    mine, best = solve(given, "convex", time_limit=60), solve(given, "milp", time_limit=60)
    assert mine.info["cvxpy"] == "optimal"
    assert verify(given, mine.choice, mine.certificate).ok
    assert mine.certificate.lower_bound == pytest.approx(best.certificate.lower_bound, rel=1e-6)
    assert mine.loss <= best.loss * 1.01


def test_where_clarabel_gives_up_another_plan_is_given() -> None:
    """A single cell without loss under a limit of 3e-10: Clarabel calls itself failed."""
    bits = Resource("bits", matrix=np.ldexp([[320.0]], -40))
    solution = solve(Problem(np.zeros((1, 1)), (bits,), (Limit("bits", np.ldexp(321.0, -40).item()),)), "convex")
    assert solution.certificate.status == "optimal"
    assert solution.info["plan"] == "vector"
