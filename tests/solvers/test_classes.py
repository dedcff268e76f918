"""The core of large tables of few costs: deviations of equal cost stand in for each other (`classes.hpp`)."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.solver_scale import bits_of, table
from solvers import native
from tests.solvers.instances import instance

pytestmark = pytest.mark.skipif(native.library() is None, reason="needs the native library")


@pytest.mark.parametrize(("family", "bits"), [("groups", 8.45), ("groups", 8.2), ("layers", 8.45), ("layers", 2.1)])
def test_few_costs_where_the_gap_is_wide_are_proved_by_the_nearest_of_each_cost(family: str, bits: float) -> None:
    """Regression: nearly all deviations cost the same near the dearest plan, and all rows were searched (100 reads)."""
    given = instance(family, 300_000, 5, 0, bits=bits, dtype=np.float32)
    resource, limit = given.resources[0], int(given.limits[0].value)
    ours = native.solve_table(given.loss, limit, size=resource.size, rate=resource.rate, sizes=resource.sizes)
    whole = native.solve_table(given.loss, limit, matrix=resource.costs())
    scale = abs(whole.loss) + whole.slope * limit
    assert ours.status == native.OPTIMAL
    assert ours.cost <= limit
    assert ours.loss <= whole.loss + 2e-12 * scale
    assert ours.bound <= whole.loss + 1e-12 * scale
    if whole.status == native.OPTIMAL:
        assert ours.loss == pytest.approx(whole.loss, abs=2e-12 * scale)


def test_rounds_that_missed_are_followed_by_a_sample() -> None:
    """Regression: their bracket was moved by its own width, which told nothing: seven reads of the table."""
    given = table("groups", 5_000_000, 5)
    resource = given.resources[0]
    limit = int(bits_of("95%", 5) * 16 * resource.sizes.total)
    answer = native.solve_table(given.loss, limit, size=resource.size, rate=resource.rate, sizes=resource.sizes)
    assert answer.status == native.OPTIMAL
    assert answer.passes <= 4
