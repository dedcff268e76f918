"""The core of large tables of few costs: deviations of equal cost stand in for each other (`classes.hpp`)."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.solver_scale import bits_of, table
from solvers import native
from tests.solvers.cost_tables import UNSTREAMED, limit_at, losses, proved
from tests.solvers.instances import instance

pytestmark = pytest.mark.skipif(native.library() is None, reason="needs the native library")


@pytest.mark.parametrize(("family", "bits"), [("groups", 8.45), ("groups", 8.2), ("layers", 8.45), ("layers", 2.1)])
def test_few_costs_where_the_gap_is_wide_are_proved_by_the_nearest_of_each_cost(family: str, bits: float) -> None:
    """Regression: nearly all deviations cost the same near the dearest plan, and all rows were searched (100 reads)."""
    given = instance(family, 300_000, 5, 0, bits=bits, dtype=np.float32)
    resource, limit = given.resources[0], int(given.limits[0].value)
    ours = native.solve_table(given.loss, limit, size=resource.size, rate=resource.rate, sizes=resource.sizes)
    whole = native.solve_table(given.loss, limit, matrix=resource.costs(), full_rows=UNSTREAMED)
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


@pytest.mark.parametrize("seed", [0, 1])
def test_some_rows_of_all_give_a_plan_that_needs_no_second_read(seed: int) -> None:
    """Regression: near the critical slope rows of rare costs are few, and the table was read again for their sake."""
    given = instance("groups", 400_000, 5, seed, dtype=np.float32)
    resource = given.resources[0]
    limit = int(bits_of("90%", 5) * 16 * resource.sizes.total)
    ours = native.solve_table(given.loss, limit, size=resource.size, rate=resource.rate, sizes=resource.sizes)
    whole = native.solve_table(given.loss, limit, matrix=resource.costs(), full_rows=UNSTREAMED)
    assert (ours.status, whole.status) == (native.OPTIMAL, native.OPTIMAL)
    assert ours.passes == 1
    assert ours.cost <= limit
    assert ours.loss == pytest.approx(whole.loss, abs=2e-12 * (abs(whole.loss) + whole.slope * limit))


ALIKE = [("alike", 0.31, 0), ("equal", 0.5, 1), ("two", 0.7, 2), ("three", 0.9, 3)]


@pytest.mark.parametrize(("slopes", "share", "seed"), ALIKE)
def test_the_nearest_rows_of_each_cost_are_as_good_as_all(slopes: str, share: float, seed: int) -> None:
    """Against a table of all totals."""
    rng = np.random.default_rng(seed)
    size = rng.choice([1, 2, 3], 8500)
    rate = np.array([3, 5, 6, 9])
    cost = size[:, None] * (rate - 2) + np.array([0, 1, 0, 2])
    loss = losses(slopes, size, rate, rng)
    limit = limit_at(cost, share)
    room = limit - int(cost.min(axis=1).sum())
    best = np.zeros(room + 1)
    for extra, lost in zip(cost - cost.min(axis=1, keepdims=True), loss, strict=True):
        found = best + lost[0]
        for step, value in zip(extra[1:].tolist(), lost[1:].tolist(), strict=True):
            np.minimum(found[step:], best[: room + 1 - step] + value, out=found[step:])
        best = found
    assert proved(loss, cost, limit) == pytest.approx(best[room], rel=1e-11)


@pytest.mark.parametrize(("slopes", "share"), [("equal", 0.9), ("two", 0.5)])
def test_many_rows_of_one_size_with_equal_slopes_are_proved(slopes: str, share: float) -> None:
    """Regression: all 45,000 rows were searched, and gaps of 1.4e-6 and 7e-7 were stated after a second."""
    rng = np.random.default_rng(0)
    rate, size = np.array([33, 42, 55, 68, 72, 88, 105, 136]), np.full(45_000, 2048 * 7168)
    overhead = rng.integers(1, 65, 8) * (size[0] // rng.choice([32, 64, 128], 8) // 16) + rng.integers(0, 300, 8)
    cost = (size[:, None] * rate // 128).astype(np.int64) + overhead
    proved(losses(slopes, size, rate / 16, rng), cost, limit_at(cost, share))
