"""A few units much larger than the rest, totals that repeat, slopes all equal: where the relaxation says least."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from bitwright.core.certificate import verify
from bitwright.core.problem import Limit, Problem, Resource, compact_bits
from solvers import native, solve
from tests.solvers.instances import RATES, instance

compiled = pytest.mark.skipif(native.library() is None, reason="the native library is not built")


def heavy(n: int, k: int, seed: int, *, spread: float = 3.0, noise: float = 0.1, share: float = 0.5) -> Problem:
    """Sizes lognormal with this spread, costs odd; loss falls as 4^-bits; the limit at a share of the range."""
    rng = np.random.default_rng([seed, n, k])
    rate = np.array(RATES[k])
    size = np.rint(np.exp(rng.normal(12, spread, n))).astype(np.int64) + 1
    loss = size[:, None] * np.exp(rng.normal(0, 1.5, (n, 1))) * 4.0 ** -(rate / 16)
    cost = size[:, None] * rate + rng.integers(-3, 4, (n, k)).clip(0)
    low, high = int(cost.min(axis=1).sum()), int(cost.max(axis=1).sum())
    return Problem(
        loss * (1 + noise * rng.normal(size=(n, k))),
        (Resource("bits", matrix=cost),),
        (Limit("bits", int(low + share * (high - low))),),
    )


def checked(given: Problem) -> float:
    """Loss of hull's plan, which must be proved and verified."""
    solution = solve(given, "hull")
    assert verify(given, solution.choice, solution.certificate).ok
    assert solution.certificate.status == "optimal"
    assert solution.loss is not None
    return solution.loss


@pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
@pytest.mark.parametrize("seed", range(12))
def test_equal_to_all_choices(seed: int, share: float) -> None:
    given = heavy(7, 4, seed, share=share)
    assert checked(given) == pytest.approx(float(solve(given, "brute").loss or 0), rel=1e-12)


@compiled
@pytest.mark.parametrize(("n", "k", "share"), [(50, 12, 0.25), (300, 12, 0.97), (1000, 4, 0.5), (2000, 8, 0.1)])
def test_large_units_do_not_keep_the_gap_open(n: int, k: int, share: float) -> None:
    """States of the core alone ended with plans up to 1e-3 above the best, which HiGHS proves in a second."""
    for seed in range(2):
        checked(heavy(n, k, seed, share=share))


@compiled
def test_heavy_tails_equal_highs() -> None:
    given = heavy(60, 8, 3, share=0.3)
    assert checked(given) == pytest.approx(float(solve(given, "milp", time_limit=60).loss or 0), rel=1e-9)


@compiled
def test_totals_that_repeat_are_tabled() -> None:
    """Equal slopes, costs with a large common divisor: such a problem once ended 2.6 % above the best plan."""
    rng = np.random.default_rng(0)
    rate, size = np.sort(rng.integers(1, 100, 8)), rng.integers(1, 400, 40)
    loss = (float(size.max() * rate.max()) - np.multiply.outer(size, rate) + 1) * (1 + 1e-7 * rng.normal(size=(40, 8)))
    scale = 2**31  # costs with a large common divisor, and a limit between two totals
    limit = int(size.sum()) * int(rate[3]) * scale + 12_345
    given = Problem(loss, (compact_bits(size * scale, rate, 16),), (Limit("bits", limit),))
    assert checked(given) == pytest.approx(float(solve(given, "dp").loss or 0), rel=1e-12)


@compiled
def test_a_table_of_totals_gives_back_every_unit_it_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the last units saved was one byte more than the others had spent: the walk back through the totals stopped
    there, and the plan took a byte more than the limit."""
    rng = np.random.default_rng([17, 3000])
    cost = np.array([[55, 79, 104, 152], [80, 128, 176, 272], [127, 177, 227, 327]])[rng.integers(0, 3, 3000)]
    falls = 4.0 ** -np.array([2, 3, 4, 6])
    loss = cost[:, :1] * np.exp(rng.normal(0, 1.5, (3000, 1))) * falls * np.exp(rng.normal(0, 0.01, (3000, 4)))
    limit = int(cost[:, 1].sum()) + 7
    given = Problem(loss, (Resource("bytes", matrix=cost),), (Limit("bytes", limit),))
    found = checked(given)
    monkeypatch.setattr(native, "library", lambda: None)  # numpy has no such table
    assert found == pytest.approx(checked(given), rel=1e-12)


@compiled
def test_a_limit_between_two_totals_is_no_gap() -> None:
    """What the steps of the costs cannot use is no reason to doubt the plan."""
    size = 2**40 * np.arange(3, 19)
    given = Problem(
        np.multiply.outer(size / 2.0**40, [7.0, 4.0, 2.0, 1.0]),
        (compact_bits(size, [2, 3, 4, 5]),),
        (Limit("bits", int(size.sum()) * 3 + 2**39),),
    )
    checked(given)


@compiled
def test_all_slopes_equal_the_limit_is_filled() -> None:
    """The relaxation stops at a large unit; hundreds of small ones fill what it leaves (once a gap of 7 %)."""
    rng = np.random.default_rng(2)
    size, rate = np.rint(np.exp(rng.normal(12, 3, 224))).astype(np.int64) + 1, np.array(RATES[12])
    given = Problem(
        np.multiply.outer(size, rate.max() - rate).astype(np.float64),
        (compact_bits(size, rate, 16),),
        (Limit("bits", int(size.sum()) * int(rate.min() + rate.max()) // 2),),
    )
    solution = solve(given, "hull")
    assert verify(given, solution.choice, solution.certificate).ok
    assert solution.certificate.relative_gap is not None
    assert solution.certificate.relative_gap < 1e-8


@compiled
@pytest.mark.parametrize(("n", "k", "share"), [(200_000, 8, 0.3), (600_000, 4, 0.05), (600_000, 8, 0.5)])
def test_a_sample_by_size_brackets_the_slope_at_once(n: int, k: int, share: float) -> None:
    """A sample of rows missed the few that are most of the size: up to eight passes, and lists of the whole table."""
    given = instance("tails", n, k, 1, dtype=np.float32)
    resource = given.resources[0]
    low, high = (rate * resource.sizes.total for rate in (min(RATES[k]), max(RATES[k])))
    found = native.solve_table(
        given.loss,
        int(low + share * (high - low)),
        size=resource.size,
        rate=resource.rate,
        sizes=resource.sizes,
        seconds=1,
    )
    assert found.passes <= 2
    assert found.listed <= n // 4


@compiled
@pytest.mark.parametrize(("n", "k", "seed"), [(3_000_000, 4, 1), (1_000_000, 8, 0)])
def test_a_long_heavy_tail_is_listed_little_and_bounded_as_all_rows_say(n: int, k: int, seed: int) -> None:
    """Sizes from 2^32 on took the pass without the sieve, samples with a large row often a wide bracket."""
    given = instance("tails", n, k, seed, dtype=np.float32)
    size, rate, bound = given.resources[0].size, given.resources[0].rate, int(given.limits[0].value)
    assert size is not None
    solved = partial(native.solve_table, given.loss, bound, size=size, rate=rate, seconds=2)
    found = solved()
    assert int((size * rate[found.choice]).sum()) == found.cost <= bound
    lower = -found.slope * bound
    for begin in range(0, n, 1 << 18):
        rows = slice(begin, begin + (1 << 18))
        lower += float((given.loss[rows] + found.slope * (size[rows, None] * rate)).min(axis=1).sum())
    loss = float(given.loss[np.arange(n), found.choice].sum(dtype=np.float64))
    scale = loss + found.slope * bound
    assert found.loss == pytest.approx(loss, rel=1e-12)
    assert found.bound == pytest.approx(lower, abs=1e-12 * scale)
    assert loss - lower <= 1e-7 * loss
    assert found.passes == 1
    assert found.listed <= n // 25
    assert np.array_equal(solved(threads=2).choice, found.choice)
