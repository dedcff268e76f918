"""The sieves of single and of double precision (solvers/native/coarse.hpp, fine256.hpp, fine512.hpp) on tables that
mislead them, against all hulls walked."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from solvers import native

Table = tuple[np.ndarray, np.ndarray, np.ndarray]
N, WHOLE = 24_000, 1 << 40
#: Brackets, by their slope, so narrow that the sieve serves from the first row on; and that single precision does not.
SINGLE, DOUBLE = 2e-3, 1e-6
pytestmark = pytest.mark.skipif(native.library() is None, reason="the native library is not built")


def plain(rng: np.random.Generator) -> Table:
    rate = np.array([33, 42, 55, 68, 72, 88, 105, 136])
    size = np.rint(np.exp(rng.normal(6, 1.2, N))).astype(np.int64) + 1
    importance = size * np.exp(rng.normal(0, 1.5, N))
    loss = importance[:, None] * 4.0 ** -(rate / 16) * np.exp(0.15 * rng.normal(size=(N, 8)))
    return loss, size, rate


def negative(rng: np.random.Generator) -> Table:
    """Some losses fall below zero by more than any price: their order as integers is the wrong one."""
    loss, size, rate = plain(rng)
    rows = rng.choice(N, 40, replace=False)
    loss[rows] -= 3 * loss[rows].max(axis=1, keepdims=True)
    return loss, size, rate


def shifted(rng: np.random.Generator) -> Table:
    """A loss common to all formats of a row, large beside what they differ by: little is left of single precision."""
    loss, size, rate = plain(rng)
    return loss + 300 * loss.mean(axis=1, keepdims=True), size, rate


def forbidden(rng: np.random.Generator) -> Table:
    loss, size, rate = plain(rng)
    gone = rng.random(loss.shape) < 0.3
    gone[np.arange(N), rng.integers(0, 8, N)] = False
    loss[gone] = np.inf
    return loss, size, rate


def unordered(rng: np.random.Generator) -> Table:
    """Rates of three bytes, in no order, two of them equal; sizes of 22 bits."""
    loss, size, rate = plain(rng)
    order = rng.permutation(8)
    rate = rate * 60_001
    rate[3] = rate[4]
    return loss[:, order], np.minimum(size * 1024, 1 << 22), rate[order]


def unsigned(rng: np.random.Generator) -> Table:
    """Sizes of 32 bits, the highest of them included: no signed integer of that width holds them."""
    loss, size, rate = plain(rng)
    return loss, np.minimum(size << 21, (1 << 32) - 1), rate


def large(rng: np.random.Generator) -> Table:
    """Sizes of more than 32 bits."""
    loss, size, rate = plain(rng)
    return loss, size << 28, rate


def tailed(rng: np.random.Generator) -> Table:
    """Some rows a thousand million times as large as the others."""
    loss, size, rate = plain(rng)
    times = np.where(rng.random(N) < 0.02, 1 << 30, 1)
    return loss * times[:, None], size * times, rate


def grid(rng: np.random.Generator) -> Table:
    """Losses of few values: formats of one row tie, and rows do."""
    loss, size, rate = plain(rng)
    return np.ldexp(1.0, np.rint(np.log2(loss)).astype(int)), size, rate


@pytest.mark.parametrize("make", [plain, negative, shifted, forbidden, unordered, unsigned, large, tailed, grid])
@pytest.mark.parametrize(
    ("formats", "equal", "width"),
    [
        *((k, True, SINGLE) for k in (2, 4, 5, 8, 12, 16)),
        *((k, False, SINGLE) for k in (3, 4, 6, 7, 8, 9, 13)),
        *((k, True, DOUBLE) for k in (5, 8, 16)),
        *((k, False, DOUBLE) for k in (3, 4, 12)),
    ],
)
def test_the_sieve_settles_only_what_is_certain(
    make: Callable[[np.random.Generator], Table], formats: int, equal: bool, width: float
) -> None:
    loss, size, rate = make(np.random.default_rng(5))
    if formats < 8:
        kept = np.rint(np.linspace(0, 7, formats)).astype(int)
        loss, rate = loss[:, kept], rate[kept]
        loss[np.isinf(loss).all(axis=1), 0] = loss[np.isfinite(loss)].mean()
    more = max(0, formats - 8)
    loss, rate = np.hstack([loss, 0.97 * loss[:, 8 - more :]]), np.hstack([rate, rate[8 - more :] + 2])
    if equal:
        size = np.full(N, 128)
        loss = loss / loss.sum(axis=1, keepdims=True) * 128 if make is not forbidden else loss
    loss = np.ascontiguousarray(loss, np.float32)
    bound = int(size.sum()) * int(rate.min() + 0.3 * (rate.max() - rate.min()))
    solved = partial(native.solve_table, loss, bound, size=size, rate=rate, seconds=60)  # no plan of a paused machine
    whole = solved(full_rows=WHOLE)
    near = (whole.slope * (1 - width), whole.slope * (1 + width))
    got = solved(full_rows=0, near=near)
    two = solved(full_rows=0, near=near, threads=2)
    assert whole.slope > 0
    assert np.array_equal(got.choice, two.choice)
    assert int((size * rate[got.choice]).sum()) == got.cost <= bound
    total = float(loss[np.arange(N), got.choice].astype(np.float64).sum())
    price = float(np.abs(loss[np.arange(N), got.choice]).astype(np.float64).sum()) + got.slope * bound
    assert got.loss == pytest.approx(total, rel=1e-12, abs=1e-13 * price)
    priced = (loss.astype(np.float64) + got.slope * (size[:, None] * rate)).min(axis=1)
    lower = float(priced.sum()) - got.slope * bound  # the bound of its multiplier, with none of its code
    assert got.bound <= lower + 1e-12 * price
    assert got.loss - lower <= whole.gap + got.gap + 1e-12 * price
