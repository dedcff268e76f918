"""Streamed tables where the relaxation splits a large row: each format of it takes one more solve (`splits.hpp`), of
the rows that the first pass listed."""

from __future__ import annotations

import numpy as np
import pytest

from solvers import native
from tests.solvers.cost_tables import UNSTREAMED
from tests.solvers.instances import compact

pytestmark = pytest.mark.skipif(native.library() is None, reason="the native library is not built")


@pytest.mark.parametrize(
    ("k", "seed", "share", "most"),
    [
        (4, 0, 0.3, 3),
        (4, 0, 0.97, 2),
        (4, 2, 0.85, 3),
        (4, 3, 0.05, 3),
        (8, 0, 0.85, 1),
        (8, 2, 0.97, 1),
        (8, 3, 0.3, 1),
    ],
)
def test_the_formats_of_a_large_row_are_solved_one_by_one(k: int, seed: int, share: float, most: int) -> None:
    """Against a search of all rows, which no format was fixed for. most: passes, once 3 or more each."""
    loss, size, rate, limit = compact("tails", 150_000, k, seed, share)
    ours = native.solve_table(loss, limit, size=size, rate=rate)
    two = native.solve_table(loss, limit, size=size, rate=rate, threads=2)
    whole = native.solve_table(loss, limit, matrix=np.multiply.outer(size, rate), full_rows=UNSTREAMED)
    scale = abs(whole.loss) + whole.slope * limit
    assert ours.passes <= most
    assert (ours.status, whole.status) == (native.OPTIMAL, native.OPTIMAL)
    assert np.array_equal(ours.choice, two.choice)
    assert int((size * rate[ours.choice]).sum()) == ours.cost <= limit
    assert ours.loss == pytest.approx(float(loss[np.arange(len(loss)), ours.choice].astype(float).sum()), rel=1e-12)
    assert ours.loss == pytest.approx(whole.loss, abs=2e-12 * scale)
    assert ours.bound == pytest.approx(whole.bound, abs=2e-12 * scale)


def test_a_large_row_of_millions_costs_no_search_of_all() -> None:
    """Regression: nearly all rows were searched for the sake of one step, and up to 1.5e-3 stayed open for it."""
    loss, size, rate, limit = compact("tails", 1 << 22, 4, 2, 0.9)
    answer = native.solve_table(loss, limit, size=size, rate=rate)
    assert answer.passes == 1
    assert answer.core < 1 << 17
    assert answer.gap <= 2e-7 * answer.loss
