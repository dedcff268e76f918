"""Long tables whose slopes are equal, or nearly: no bracket of multipliers that single precision tells apart leaves few
rows (solvers/native/fine256.hpp, fill.hpp, tied.hpp). Against a bound in float64 that has none of that code."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from solvers import native
from tests.solvers.cost_tables import limit_at
from tests.solvers.instances import RATES, instance

pytestmark = pytest.mark.skipif(native.library() is None, reason="the native library is not built")


def table(n: int, k: int, noise: float, equal: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each bit of a unit of size saves one, but for `noise`."""
    rng = np.random.default_rng([n, k, equal])
    rate = np.array(RATES[k])
    size = np.full(n, 128) if equal else np.maximum(1, np.rint(np.exp(rng.normal(9, 1, n)))).astype(np.int64)
    save = np.diff(rate) / 16 * (1 + noise * rng.normal(size=(n, k - 1)))
    more = np.pad(np.cumsum(save[:, ::-1], axis=1)[:, ::-1], ((0, 0), (0, 1)))
    return (size[:, None] * (20 - rate[-1] / 16 + more)).astype(np.float32), size, rate


@pytest.mark.parametrize("share", [0.5, 0.9])
@pytest.mark.parametrize("equal", [False, True])
@pytest.mark.parametrize("noise", [1e-3, 1e-4, 1e-5, 1e-6, 0.0])
@pytest.mark.parametrize("k", [4, 8, 12])
def test_equal_slopes_take_few_passes_and_a_proved_gap(k: int, noise: float, equal: bool, share: float) -> None:
    n = 20_000
    loss, size, rate = table(n, k, noise, equal)
    bound = int(size.sum()) * int(rate.min() + share * (rate.max() - rate.min()))
    solved = partial(native.solve_table, loss, bound, size=size, rate=rate, full_rows=64, seconds=60)
    got, two = solved(), solved(threads=2)
    assert np.array_equal(got.choice, two.choice)
    assert int((size * rate[got.choice]).sum()) == got.cost <= bound
    assert got.loss == pytest.approx(float(loss[np.arange(n), got.choice].astype(np.float64).sum()), rel=1e-12)
    priced = (loss.astype(np.float64) + got.slope * (size[:, None] * rate)).min(axis=1)
    lower = float(priced.sum()) - got.slope * bound
    assert got.bound <= lower + 1e-12 * got.loss
    assert got.loss - lower <= 1e-6 * got.loss
    assert got.passes <= 8


def tied(k: int, dtype: type, equal: bool, case: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every slope is one; or most rows have others, some losses are infinite or negative, rates are in no order."""
    n, rng = 30_011, np.random.default_rng(k)
    rate = np.sort(rng.choice(np.arange(16, 160, 4), k, replace=False))
    if case == "falling":
        rate = rate[::-1].copy()
    if case == "unordered":
        rate = rng.permutation(rate) * (1 << 20)
    size = np.full(n, 128) if equal else rng.integers(1, 1 << 14, n)
    loss = size[:, None] * (200.0 - 16 * (rate / rate.max()))
    if case == "few":
        loss += (rng.random(n) < 0.9)[:, None] * rng.normal(size=(n, k)) * size[:, None]
    if case == "negative":
        loss -= 300.0 * size[:, None]
    if case == "forbidden":
        gone = rng.random(loss.shape) < 0.3
        gone[np.arange(n), rng.integers(0, k, n)] = False
        loss[gone] = np.inf
    return loss.astype(dtype), size, rate


@pytest.mark.parametrize("case", ["plain", "falling", "unordered", "few", "negative", "forbidden"])
@pytest.mark.parametrize("equal", [False, True])
@pytest.mark.parametrize(
    ("k", "dtype"),
    [
        (2, np.float32),
        (3, np.float32),
        (4, np.float32),
        (5, np.float64),
        (8, np.float32),
        (11, np.float32),
        (16, np.float32),
    ],
)
def test_formats_that_tie_fill_the_limit_in_any_table(k: int, dtype: type, equal: bool, case: str) -> None:
    loss, size, rate = tied(k, dtype, equal, case)
    cost = np.multiply.outer(size, rate)
    least = np.where(np.isfinite(loss), cost, np.iinfo(np.int64).max).min(axis=1).sum()
    most = np.where(np.isfinite(loss), cost, 0).max(axis=1).sum()
    for share in (0.01, 0.4, 0.95):
        limit = int(least + share * (most - least))
        got = native.solve_table(loss, limit, size=size, rate=rate, full_rows=64)
        assert int(cost[np.arange(len(size)), got.choice].sum()) == got.cost <= limit
        chosen = float(loss[np.arange(len(size)), got.choice].astype(np.float64).sum())
        assert got.loss == pytest.approx(chosen, rel=1e-12)
        lower = float((loss.astype(np.float64) + got.slope * cost).min(axis=1).sum()) - got.slope * limit
        assert got.bound <= lower + 1e-12 * abs(chosen)
        step = got.slope * float(size.max()) * float(rate.max() - rate.min())  # of one row at most
        assert chosen - lower <= step + 1e-9 * abs(chosen)


@pytest.mark.parametrize("share", [0.001, 0.999])
def test_a_few_rows_beside_the_bracket_fill_what_a_long_table_leaves(share: float) -> None:
    """Regression: where float32 makes a thousandth of the slopes a little steeper, the limit lies among those, which
    filled nothing: all rows were listed, and searched for seconds in vain."""
    loss, size, rate = table(1 << 22, 8, 0.0, False)
    bound = int(size.sum() * (rate.min() + share * (rate.max() - rate.min())))
    answer = native.solve_table(loss, bound, size=size, rate=rate)
    assert answer.status == native.OPTIMAL
    assert answer.core < 1 << 17


def test_a_tenth_of_all_rows_of_one_slope_is_not_searched() -> None:
    """Regression: rows whose float32 losses give them the same slope were listed, and searched for a third of a second,
    where a few rows of other costs fill what is left."""
    loss, size, rate = table(1 << 21, 4, 1e-6, True)
    bound = int(size.sum() * (rate.min() + 0.8 * (rate.max() - rate.min())))
    answer = native.solve_table(loss, bound, size=size, rate=rate)
    assert answer.status == native.OPTIMAL
    assert answer.listed > 1 << 17
    assert answer.core < 1 << 17


@pytest.mark.parametrize("seed", [3, 5, 7])
def test_uneven_units_of_one_slope_fill_the_limit(seed: int) -> None:
    """Regression: cells of least penalty were all of cheaper formats, as the multiplier is off by its last bits, and
    their sums filled nothing: 1.6e-11 to 1.4e-8 of the loss was stated after a search of all rows."""
    rng = np.random.default_rng([seed, 6])
    size, rate = (1e5 * (1 + rng.pareto(1.5, 20_000))).astype(np.int64), np.array([32, 48, 64, 80, 96, 112, 128, 256])
    loss, limit = size[:, None] * (320.0 - rate), limit_at(np.multiply.outer(size, rate), 0.4)
    answer = native.solve_table(loss, limit, size=size, rate=rate)
    assert answer.status == native.OPTIMAL
    assert int((size * rate[answer.choice]).sum()) == answer.cost <= limit


def test_units_of_nearly_one_slope_are_closed_by_a_few() -> None:
    """Regression: bytes that are rounded up, and scales, make slopes nearly equal: all rows were searched, and one of
    these stayed 2.9e-12 above its bound."""
    rng = np.random.default_rng(7)
    size, bits = rng.integers(10**4, 10**7, 20_000), np.arange(2, 10)
    cost = -(-size[:, None] * bits // 8) + 2 * (-(-size // 128))[:, None]
    answer = native.solve_table(size[:, None] * (20.0 - bits), limit_at(cost, 0.3), matrix=cost)
    assert answer.status == native.OPTIMAL
    assert answer.core < 10_000


@pytest.mark.parametrize("k", [4, 8])
def test_one_pass_is_enough_near_the_end_of_the_range(k: int) -> None:
    """Regression: where nearly all rows have their dearest format and the others' slopes are equal but for 1e-7, no
    multiplier was near enough below them, and up to eight passes followed."""
    problem = instance("correlated", 1 << 20, k, 0, dtype=np.float32)
    bits = problem.resources[0]
    assert bits.rate is not None
    for share in (0.99, 0.998, 0.9995):
        bound = int(bits.sizes.total * (bits.rate.min() + share * (bits.rate.max() - bits.rate.min())))
        answer = native.solve_table(problem.loss, bound, size=bits.size, rate=bits.rate)
        assert answer.status == native.OPTIMAL
        assert answer.passes == 1
