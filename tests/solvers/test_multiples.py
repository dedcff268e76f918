"""Deviations of use that all cost multiples of one number, or all but those of a few rows."""

from __future__ import annotations

import numpy as np
import pytest

from solvers import native
from tests.solvers.cost_tables import limit_at, proved

pytestmark = pytest.mark.skipif(native.library() is None, reason="the native library is not built")
#: From so many rows on a table is long: its searches are other ones.
LONG = 1 << 13


def best_of_totals(loss: np.ndarray, cost: np.ndarray, limit: int) -> float:
    """The least loss, by a table of all totals up to the limit."""
    at = np.full(limit + 1, np.inf)
    at[0] = 0.0
    for lost, paid in zip(loss, cost, strict=True):
        new = np.full(limit + 1, np.inf)
        for add, step in zip(lost, paid, strict=True):
            if step <= limit:
                np.minimum(new[step:], at[: limit + 1 - step] + add, out=new[step:])
        at = new
    return float(at.min())


def of_kinds(n: int, kinds: int, size: np.ndarray, rate: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Losses of a few kinds of rows: those of one kind tie at every multiplier."""
    factor = np.exp(rng.normal(0, 1.5, kinds))[rng.integers(0, kinds, n)]
    return size[:, None] * factor[:, None] * 4.0 ** -(rate / 2)


@pytest.mark.parametrize("k", [2, 3, 4])
def test_small_tables_equal_a_table_of_all_totals(k: int) -> None:
    for seed in range(40):
        rng = np.random.default_rng([seed, k])
        n = int(rng.integers(6, 40))
        size = rng.integers(1, 30, n) * int(rng.choice([1, 6])) + int(rng.integers(0, 2))
        size[: rng.integers(0, 3)] = int(rng.integers(100, 300))
        rate = np.sort(rng.choice(np.arange(1, 9), k, replace=False))
        loss, cost = of_kinds(n, int(rng.integers(1, 4)), size, rate, rng), size[:, None] * rate
        limit = limit_at(cost, float(rng.uniform(0.02, 0.98)))
        assert proved(loss, cost, limit) == pytest.approx(best_of_totals(loss, cost, limit), rel=1e-11)


def filled_up(loss: np.ndarray, cost: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same table with rows that cost and lose nothing, so that it is searched as a long one."""
    more = LONG + 8 - len(loss)
    return np.pad(loss, ((0, more), (0, 0))), np.pad(cost, ((0, more), (0, 0)))


@pytest.mark.parametrize("costs", ["kinds", "odd", "tail"])
@pytest.mark.parametrize("k", [4, 8])
def test_long_tables_equal_shorter_ones(k: int, costs: str) -> None:
    """Rows of few kinds; few sizes and two rows of another one; a heavy tail in whole bytes."""
    for seed in range(6):
        rng = np.random.default_rng([seed, k, len(costs)])
        n = LONG - 200
        rate = np.array([2, 3, 4, 8, 5, 6, 7, 16][:k])
        if costs == "tail":
            size = np.rint(np.exp(rng.normal(12, 2 + seed % 2, n))).astype(np.int64) + 1
            loss = size[:, None] * 4.0**-rate * np.exp(rng.normal(0, 1.5, (n, 1)) + 0.2 * rng.normal(size=(n, k)))
            cost = -(-size[:, None] * rate // 8)
        elif costs == "odd":
            size = rng.choice([4, 16, 56], n)
            size[[0, -1]] = 501
            loss = size[:, None] * (20.0 - rate) * (1 + 1e-3 * rng.normal(size=(n, k)))
            cost = size[:, None] * rate
        else:
            size = rng.integers(100, 20_000, n) * 2 + 1
            loss, cost = of_kinds(n, 64, size, rate, rng), size[:, None] * rate
        limit = limit_at(cost, float(rng.choice([0.05, 0.3, 0.5, 0.8])))
        short = native.solve_table(loss, limit, matrix=cost)
        more_loss, more_cost = filled_up(loss, cost)
        long = native.solve_table(more_loss, limit, matrix=more_cost)
        rows = np.arange(n)
        lost = [float(loss[rows, one.choice[:n]].sum(dtype=np.longdouble)) for one in (short, long)]
        assert long.cost == cost[rows, long.choice[:n]].sum() <= limit
        none = 1e-12 * (lost[0] + 2 * short.slope * limit)  # what counts as no difference
        if long.status == native.OPTIMAL:
            assert lost[1] <= lost[0] + none
        if short.status == native.OPTIMAL:
            assert lost[1] >= lost[0] - none


@pytest.mark.parametrize("giants", [0, 5])
def test_rows_of_few_kinds_are_proved(giants: int) -> None:
    """Rows of the critical kind cost multiples of a longer step: 5e-9 to 5.7e-6 of the loss were left open."""
    rng = np.random.default_rng(20)
    size = rng.integers(100, 20_000, 20_000) * 2 + 1
    size[rng.choice(20_000, giants, False)] = rng.integers(2_000_000, 20_000_000, giants)
    rate = np.array([2, 3, 4, 5, 6, 7, 8, 16])
    loss, cost = of_kinds(20_000, 64, size, rate, rng), size[:, None] * rate
    for share in (0.1, 0.25, 0.75):
        proved(loss, cost, limit_at(cost, share))


def test_two_odd_rows_are_settled_first() -> None:
    """An embedding at both ends of nearly equal slopes on three sizes: 2e-7 of the loss was left open."""
    rng = np.random.default_rng(9)
    size = rng.choice([4, 16, 56], 20_000)
    rate = np.array([2, 3, 4, 8])
    even = size[:, None] * (20.0 - rate) * (1 + 1e-3 * rng.normal(size=(20_000, 4)))
    odd = 501 * (20.0 - rate) * (1 + 1e-3 * rng.normal(size=(2, 4)))
    loss, cost = np.vstack([odd[:1], even, odd[1:]]), np.concatenate([[501], size, [501]])[:, None] * rate
    limit = limit_at(cost, 0.35) // 4 * 4 + 3
    found = proved(loss, cost, limit)
    # With the formats of both fixed all other costs are multiples of four.
    best = np.inf
    for a in range(4):
        for b in range(4):
            left = limit - int(cost[0, a] + cost[-1, b])
            best = min(best, proved(even, cost[1:-1] // 4, left // 4) + odd[0, a] + odd[1, b])
    assert found == pytest.approx(best, rel=1e-11)


@pytest.mark.parametrize("spread", [2.0, 3.0])
def test_heavy_tails_in_whole_bytes_are_proved(spread: float) -> None:
    """Not sizes times rates, so not streamed: rows next to the critical slope are branched on all the same."""
    for seed in range(3):
        rng = np.random.default_rng([seed, 31])
        size = np.rint(np.exp(rng.normal(12, spread, 20_000))).astype(np.int64) + 1
        rate = np.array([2, 3, 4, 5, 6, 7, 8, 16])
        loss = size[:, None] * 4.0**-rate * np.exp(rng.normal(0, 1.5, (20_000, 1)))
        cost = -(-size[:, None] * rate // 8) + 2 * -(-size // 128)[:, None]
        proved(loss, cost, limit_at(cost, (0.1, 0.4, 0.8)[seed]))
