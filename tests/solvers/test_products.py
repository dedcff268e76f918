"""Long tables whose matrix of costs is sizes times rates (`products.hpp`): solved as those that are given so."""

from __future__ import annotations

import numpy as np
import pytest

from solvers import native
from tests.solvers.cost_tables import UNSTREAMED, limit_at, losses

pytestmark = pytest.mark.skipif(native.library() is None, reason="the native library is not built")
RATE = np.array([0, 42, 54, 66, 72, 88, 105, 136])


def drawn(seed: int, spread: float, single: bool) -> tuple[np.ndarray, np.ndarray]:
    """Sizes, some of them 0 but not the first, and losses, some of them forbidden."""
    rng = np.random.default_rng(seed)
    size = np.rint(np.exp(rng.normal(9, spread, 17_000))).astype(np.int64) + 1
    loss = losses("fall", size, RATE, rng)
    size[100::1000] = 0
    loss[rng.random(loss.shape) < 0.05] = np.inf
    loss[:, 2] = size
    return size, loss.astype(np.float32) if single else loss


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("spread", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("share", [0.03, 0.4, 0.97])
def test_the_plan_is_that_of_sizes_and_rates(share: float, spread: float, single: bool) -> None:
    size, loss = drawn(3, spread, single)
    cost = np.multiply.outer(size, RATE)
    limit = limit_at(cost, share)
    matrix, given = native.solve_table(loss, limit, matrix=cost), native.solve_table(loss, limit, size=size, rate=RATE)
    whole = native.solve_table(loss, limit, matrix=cost, full_rows=UNSTREAMED)
    rows, none = np.arange(len(size)), 1e-12 * (abs(whole.loss) + 2 * whole.slope * limit)
    assert np.array_equal(matrix.choice, given.choice)
    assert matrix.status == given.status
    assert int(cost[rows, matrix.choice].sum()) == matrix.cost <= limit
    assert matrix.bound == pytest.approx(whole.bound, abs=none)
    if whole.status == native.OPTIMAL:
        assert matrix.loss >= whole.loss - none
    if matrix.status == native.OPTIMAL:
        assert matrix.loss <= whole.loss + none


@pytest.mark.parametrize("row", [0, 1, 16_999])
@pytest.mark.parametrize("format_", [0, 7])
def test_one_cost_beside_that_is_not_lost(row: int, format_: int) -> None:
    """A matrix that is sizes times rates but for one cell is taken as it is."""
    size, loss = drawn(4, 1.0, False)
    cost = np.multiply.outer(size, RATE)
    cost[row, format_] += 1
    limit = limit_at(cost, 0.3)
    answer, whole = (native.solve_table(loss, limit, matrix=cost, full_rows=most) for most in (1 << 14, UNSTREAMED))
    assert int(cost[np.arange(len(size)), answer.choice].sum()) == answer.cost <= limit
    assert np.array_equal(answer.choice, whole.choice)


def test_a_matrix_that_begins_with_nothing_or_is_nothing() -> None:
    size, loss = drawn(5, 1.0, False)
    size[0] = 0
    cost = np.multiply.outer(size, RATE)
    answer = native.solve_table(loss, limit_at(cost, 0.3), matrix=cost)
    assert answer.status == native.OPTIMAL
    assert int(cost[np.arange(len(size)), answer.choice].sum()) == answer.cost
    free = native.solve_table(loss, 0, matrix=np.zeros_like(cost))
    assert free.status == native.OPTIMAL
    assert free.loss == pytest.approx(float(loss.min(axis=1).sum()), rel=1e-12)
