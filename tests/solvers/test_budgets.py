"""Large tables at budgets near the cheapest and the dearest plan, where few rows have slopes near the critical one."""

from __future__ import annotations

import pytest

from solvers import native
from tests.solvers.instances import compact

WHOLE = 1 << 40
pytestmark = pytest.mark.skipif(native.library() is None, reason="the native library is not built")


@pytest.mark.parametrize("share", [0.01, 0.9, 0.97, 0.99])
@pytest.mark.parametrize(
    ("family", "k", "seed"), [("groups", 8, 0), ("experts", 4, 1), ("layers", 8, 2), ("layers", 3, 3)]
)
def test_few_costs_are_proved_by_a_table_of_totals(family: str, k: int, seed: int, share: float) -> None:
    loss, size, rate, bound = compact(family, 40_000, k, seed, share)
    whole = native.solve_table(loss, bound, size=size, rate=rate, full_rows=WHOLE)
    answer = native.solve_table(loss, bound, size=size, rate=rate)
    scale = whole.loss + whole.slope * bound
    assert answer.status == native.OPTIMAL
    assert int((size * rate[answer.choice]).sum()) == answer.cost <= bound
    assert answer.loss <= whole.loss + 2e-12 * scale
    if whole.status == native.OPTIMAL:
        assert answer.loss == pytest.approx(whole.loss, abs=2e-12 * scale)


@pytest.mark.parametrize("family", ["hetero", "oddsize"])
def test_a_bracket_far_above_the_steepest_steps_becomes_narrow(family: str) -> None:
    """At 1 % of the range cost hardly changes over most multipliers that a sample allows."""
    loss, size, rate, bound = compact(family, 1 << 19, 4, 0, 0.01)
    answer = native.solve_table(loss, bound, size=size, rate=rate)
    assert answer.passes == 2  # one that the bracket takes, and one for the rows of use
    assert answer.listed < len(loss) // 25


@pytest.mark.parametrize(("k", "share"), [(4, 0.998), (4, 0.999), (8, 0.001), (8, 0.999)])
def test_nearly_equal_slopes_at_the_end_of_a_wide_bracket_are_found(k: int, share: float) -> None:
    """Regression: cost is a cliff there, that ten guesses missed: up to a fifth of all rows was listed."""
    loss, size, rate, bound = compact("similar", 1 << 19, k, 0, share)
    answer = native.solve_table(loss, bound, size=size, rate=rate)
    assert answer.status == native.OPTIMAL
    assert answer.listed < len(loss) // 64


def test_rows_of_few_slopes_are_listed_for_a_proof_without_a_second_read() -> None:
    """Regression: where few rows are near the critical slope, those listed were those within half of the gap."""
    loss, size, rate, bound = compact("layers", 1 << 19, 8, 2, 0.995)
    answer = native.solve_table(loss, bound, size=size, rate=rate, full_rows=1 << 10)
    assert answer.status == native.OPTIMAL
    assert answer.passes == 1


@pytest.mark.parametrize(("family", "share"), [("layers", 0.99), ("experts", 0.95)])
def test_a_dear_budget_takes_no_search_of_states(family: str, share: float) -> None:
    """Before, halves and branches over 35,000 choices and more, and a search of all rows after them."""
    loss, size, rate, bound = compact(family, 1 << 19, 8, 0, share)
    answer = native.solve_table(loss, bound, size=size, rate=rate)
    assert answer.status == native.OPTIMAL
    assert answer.states < 5_000
