"""A few units that outweigh all others: an embedding beside experts, one larger than 900 others; costs in bytes."""

from __future__ import annotations

import numpy as np
import pytest

from solvers import native
from tests.solvers.cost_tables import limit_at, losses, proved
from tests.solvers.instances import RATES
from tests.solvers.test_halves import least

pytestmark = pytest.mark.skipif(native.library() is None, reason="the native library is not built")

KINDS = ("embedding", "one", "few", "tied", "experts")
SLOPES = ("equal", "near", "three", "alike", "fall")


def sizes(kind: str, n: int, small: int, rng: np.random.Generator) -> np.ndarray:
    """`small`: of the others. Equal ones beside one of 70 times that or two of 9; one or three as large as all."""
    if kind == "experts":
        return np.where(np.arange(n) == 0, 102_400 * 2048, 1408 * 2048)
    if kind in ("embedding", "tied"):
        size = np.full(n, small)
        size[: 1 if kind == "embedding" else 2] = small * (73 if kind == "embedding" else 9) - 1
        return size
    size = rng.integers(small, 5 * small, n)
    size[: 1 if kind == "one" else 3] = size.sum() * rng.uniform(0.5, 2, 1 if kind == "one" else 3)
    return size


def outweighed(
    kind: str, slopes: str, n: int, k: int, share: float, seed: int, small: int = 1000
) -> tuple[np.ndarray, np.ndarray, int]:
    """Loss, cost in bytes with the scales of groups of 64 rounded up (`experts`: bits), a limit at a share."""
    rng = np.random.default_rng([seed, n, k, KINDS.index(kind), SLOPES.index(slopes)])
    rate, size = np.array(RATES[k]), sizes(kind, n, small, rng)
    scale = rng.integers(1, 4, k) * 4 + 1
    cost = -(-size[:, None] * (rate // 16) // 8) + -(-(-(-size[:, None] // 64) * scale) // 8)
    if kind == "experts":
        cost = size[:, None] * rate
    return losses(slopes, size, rate, rng), cost, limit_at(cost, share)


def tabled(loss: np.ndarray, cost: np.ndarray, limit: int, large: int) -> float:
    """The least loss by a table of every total of the small units, for each choice of the first `large` ones."""
    base = cost[large:].min(axis=1)
    table = np.zeros(limit - int(base.sum()) + 1)
    for row, extra in zip(loss[large:], cost[large:] - base[:, None], strict=True):
        shifted = np.full((len(row), len(table)), np.inf)
        for j, by in enumerate(extra.tolist()):
            shifted[j, by:] = table[: max(0, len(table) - by)] + row[j]
        table = shifted.min(axis=0)
    total, spent = np.zeros(1), np.zeros(1, np.int64)
    for row, price in zip(loss[:large], cost[:large], strict=True):
        total, spent = (total[:, None] + row).ravel(), (spent[:, None] + price).ravel()
    room = len(table) - 1 - spent
    return float((total + table[room.clip(0)])[room >= 0].min())


@pytest.mark.parametrize("slopes", SLOPES)
@pytest.mark.parametrize("kind", KINDS)
def test_equal_to_all_choices(kind: str, slopes: str) -> None:
    for seed, (n, k, share) in enumerate([(30, 2, 0.5), (20, 3, 0.1), (14, 5, 0.9), (14, 4, 0.3)]):
        loss, cost, limit = outweighed(kind, slopes, n, k, share, seed)
        assert proved(loss, cost, limit) == pytest.approx(least(loss, cost, limit), rel=2e-12)


@pytest.mark.parametrize("slopes", ["three", "alike"])
@pytest.mark.parametrize(("kind", "large"), [("embedding", 1), ("one", 1), ("few", 3), ("tied", 2)])
def test_equal_to_a_table_of_totals(kind: str, large: int, slopes: str) -> None:
    loss, cost, limit = outweighed(kind, slopes, 150, 4, 0.4, 1, small=100)
    assert proved(loss, cost, limit) == pytest.approx(tabled(loss, cost, limit, large), rel=2e-12)


@pytest.mark.parametrize(
    ("kind", "slopes", "n", "k", "share"),
    [
        ("experts", "equal", 900, 8, 0.9),
        ("experts", "equal", 2000, 4, 0.9),
        ("experts", "near", 2000, 3, 0.5),
        ("one", "three", 2000, 4, 0.5),
        ("few", "equal", 900, 4, 0.5),
    ],
)
def test_formats_of_the_largest_units_come_first(kind: str, slopes: str, n: int, k: int, share: float) -> None:
    """Such problems ended with gaps of 1e-5 to 2e-2: those of a step of the largest unit."""
    proved(*outweighed(kind, slopes, n, k, share, 0))
