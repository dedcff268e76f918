"""Streamed tables of a heavy tail: rows near the critical slope are branched on, giants have their formats fixed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bitwright.core.certificate import verify
from bitwright.core.problem import Limit, Problem, compact_bits
from solvers import native, solve
from tests.solvers.cost_tables import unstreamed
from tests.solvers.instances import RATES, instance

pytestmark = pytest.mark.skipif(native.library() is None, reason="the native library is not built")


def tail(n: int, k: int, seed: int, spread: float, share: float, dtype: type = np.float64) -> Problem:
    """Sizes lognormal with this spread; the limit at a share of the range."""
    rng = np.random.default_rng([seed, n, k])
    rate, size = np.array(RATES[k]), np.rint(np.exp(rng.normal(12, spread, n))).astype(np.int64) + 1
    loss = size[:, None] * np.exp(rng.normal(0, 1.5, (n, 1))) * 4.0 ** -(rate / 16) * np.exp(rng.normal(0, 0.2, (n, k)))
    limit = int((rate.min() + share * (rate.max() - rate.min())) * int(size.sum()))
    return Problem((loss / loss.sum()).astype(dtype), (compact_bits(size, rate, 16),), (Limit("bits", limit),))


def bound_of(given: Problem) -> int:
    return int(given.limits[0].value)


def streamed(given: Problem, full_rows: int) -> native.TableAnswer:
    resource = given.resources[0]
    return native.solve_table(given.loss, bound_of(given), size=resource.size, rate=resource.rate, full_rows=full_rows)


@pytest.mark.parametrize("spread", [1.5, 3.0, 4.5])
@pytest.mark.parametrize(("n", "k"), [(300, 4), (3000, 8), (9000, 4)])
def test_equal_to_a_search_of_all_rows(n: int, k: int, spread: float) -> None:
    for seed in range(3):
        for share in (0.03, 0.4, 0.97):
            given = tail(n, k, seed, spread, share, np.float32 if seed % 2 else np.float64)
            whole, levels = streamed(given, 1 << 14), streamed(given, 64)
            rows = np.arange(n)
            loss = [float(given.loss[rows, one.choice].sum(dtype=np.longdouble)) for one in (whole, levels)]
            assert levels.cost <= bound_of(given)
            # What counts as no difference is relative to the priced losses of all rows, as the checker's rounding is.
            none = 1e-12 * (loss[0] + 2 * whole.slope * bound_of(given))
            if levels.status == native.OPTIMAL:
                assert loss[1] <= loss[0] + none
            if whole.status == native.OPTIMAL:
                assert loss[1] >= loss[0] - none


@pytest.mark.parametrize(("k", "seed"), [(4, 0), (4, 3), (8, 4), (8, 7), (8, 9)])
def test_equal_to_the_same_costs_as_a_matrix(k: int, seed: int) -> None:
    """These are not streamed, so other searches prove them."""
    given = instance("tails", 20_000, k, seed)
    resource = given.resources[0]
    assert resource.size is not None
    assert resource.rate is not None
    matrix, limit = unstreamed(resource.size, resource.rate), Limit("bits", bound_of(given) + 1)
    answers = []
    for one in (given, replace(given, resources=(matrix,), limits=(limit,))):
        solution = solve(one, "hull")
        assert verify(one, solution.choice, solution.certificate).ok
        answers.append(solution)
    assert answers[0].certificate.status == "optimal"
    compact, other = (float(one.loss or 0) for one in answers)
    assert compact <= other * (1 + 2e-12)
    if answers[1].certificate.status == "optimal":
        assert compact == pytest.approx(other, rel=2e-12)


@pytest.mark.parametrize(("k", "seed"), [(4, 0), (8, 4), (8, 7)])
def test_a_giant_does_not_keep_the_gap_open(k: int, seed: int) -> None:
    """Nearly every row was of use beside a giant that the relaxation splits: the last of these ended 2.7e-4 above its
    bound after a second."""
    given = instance("tails", 45_000, k, seed)
    solution = solve(given, "hull")
    assert verify(given, solution.choice, solution.certificate).ok
    assert solution.certificate.status == "optimal"


@pytest.mark.parametrize("share", [0.02, 0.05, 0.11])
def test_uneven_rows_beside_giants_are_closed_soon(share: float) -> None:
    """Branches of few options that no pass had closed were split thousands of times."""
    rng = np.random.default_rng(5)
    size = np.rint(np.exp(rng.normal(10, 1.2, 20_000))).astype(np.int64) + 1
    size[rng.integers(20_000)] = int(share * size.sum())
    rate = np.array(RATES[4])
    loss = size[:, None] * np.exp(rng.normal(0, 1.5, (20_000, 1))) * 4.0 ** -(rate / 16)
    given = Problem(loss / loss.sum(), (compact_bits(size, rate, 16),), (Limit("bits", int(56 * size.sum())),))
    solution = solve(given, "hull")
    assert verify(given, solution.choice, solution.certificate).ok
    assert solution.certificate.status == "optimal"
