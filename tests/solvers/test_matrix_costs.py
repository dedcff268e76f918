"""`hull` on long tables whose costs are a matrix: few hulls are walked, and searches look at the rows of use only."""

from __future__ import annotations

import numpy as np
import pytest

from bitwright.core.bound import lagrangian
from bitwright.core.problem import Limit, Problem, Resource, least_and_most, much
from solvers import native, solve
from solvers.finish import best_uniform
from solvers.hulls import build_hulls, relax
from tests.solvers.cost_tables import limit_at, losses, problem, proved, unstreamed

needs_native = pytest.mark.skipif(native.library() is None, reason="the native library is not built")
RATE = np.array([25, 41, 55, 72, 88, 105, 136, 256])
SHARES = (0.0, 0.001, 0.3, 0.8, 0.999, 1.0)


def sizes(kind: str, n: int, rng: np.random.Generator) -> np.ndarray:
    if kind == "equal":
        return np.full(n, 4096)
    if kind == "giant":  # one unit outweighs all others
        size = rng.integers(1, 100, n) * 6
        size[n // 3] = 3 * int(size.sum()) + 1
        return size
    return np.maximum(1, np.rint(np.exp(rng.normal(13, float(kind), n)))).astype(np.int64)


def costs(kind: str, size: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Bytes of each format; with a header of each unit, with units left out, or formats that cost nearly the same."""
    cost = -(-(size[:, None] * RATE) // 128)
    if kind == "header":
        return cost + rng.integers(16, 200, (len(size), 1)) * np.arange(1, len(RATE) + 1)
    if kind == "prune":
        cost[:, 0] = 0
    if kind == "nearly":
        cost[:, 4] = cost[:, 3] + rng.integers(1, 5, len(size))
    if kind == "free":
        cost[:] = 0
    return cost


@needs_native
@pytest.mark.parametrize("slopes", ["fall", "equal", "two", "near"])
@pytest.mark.parametrize("cost_kind", ["header", "prune", "nearly", "free"])
@pytest.mark.parametrize("size_kind", ["equal", "giant", "1.0", "4.0"])
def test_the_bound_is_that_of_all_hulls(size_kind: str, cost_kind: str, slopes: str) -> None:
    """Whatever bracket a sample gave, the multiplier is that of the relaxation over all steps."""
    rng = np.random.default_rng([len(cost_kind), len(slopes), ord(size_kind[0])])
    size = sizes(size_kind, 8200, rng)
    cost, loss = costs(cost_kind, size, rng), losses(slopes, size, RATE, rng)
    loss[rng.random(loss.shape) < 0.1] = np.inf
    loss[:, 5] = 1.0  # every unit may take some format
    allowed = np.where(np.isfinite(loss), cost, -1)
    low, high = (
        int(np.where(allowed < 0, np.iinfo(np.int64).max, allowed).min(axis=1).sum()),
        int(allowed.max(axis=1).sum()),
    )
    hulls = build_hulls(loss, cost)
    for share in SHARES:
        limit = low + int(share * (high - low))
        vertex = relax(hulls, limit)
        assert vertex is not None
        chosen = float(loss[np.arange(len(loss)), vertex.choice].sum())
        answer = native.solve_table(loss, limit, matrix=cost, seconds=0.3)
        assert answer.status != native.INFEASIBLE
        assert answer.cost <= limit
        assert answer.bound == pytest.approx(chosen - vertex.slope * vertex.slack, rel=1e-12, abs=1e-12 * chosen)
    assert native.solve_table(loss, low - 1, matrix=cost).status == native.INFEASIBLE


@needs_native
@pytest.mark.parametrize(
    ("size_kind", "cost_kind", "slopes", "share"),
    [
        ("1.0", "header", "fall", 0.2),
        ("1.0", "prune", "fall", 0.8),
        ("2.0", "nearly", "fall", 0.97),
        ("equal", "nearly", "fall", 0.5),
        ("giant", "header", "fall", 0.2),
        ("1.0", "header", "two", 0.5),
    ],
)
def test_tables_of_matrix_costs_are_proved(size_kind: str, cost_kind: str, slopes: str, share: float) -> None:
    rng = np.random.default_rng(5)
    size = sizes(size_kind, 20_000, rng)
    cost = costs(cost_kind, size, rng)
    proved(losses(slopes, size, RATE, rng), cost, limit_at(cost, share))


@needs_native
def test_the_loss_of_a_plan_does_not_depend_on_how_costs_are_given() -> None:
    rng = np.random.default_rng(8)
    size = sizes("1.0", 20_000, rng)
    loss, limit = losses("fall", size, RATE, rng), limit_at(size[:, None] * RATE, 0.4)
    compact = Resource("bits", size=size, rate=RATE)
    one, other = (
        solve(Problem(loss, (r,), (Limit("bits", value),)), "hull")
        for r, value in ((compact, limit), (unstreamed(size, RATE), limit + 1))
    )
    assert one.certificate.status == other.certificate.status == "optimal"
    assert one.loss == pytest.approx(other.loss, rel=1e-12)


@pytest.mark.parametrize("forbids", [False, True])
def test_least_and_most_are_those_of_each_row(forbids: bool) -> None:
    rng = np.random.default_rng(3)
    cost, loss = rng.integers(0, 1 << 40, (20_000, 5)), rng.random((20_000, 5))
    if forbids:
        loss[rng.random(loss.shape) < 0.5] = np.inf
    allowed = np.isfinite(loss)
    none = ~allowed.any(axis=1)
    least, most = least_and_most(cost, loss if forbids else None)
    assert (least == np.where(none, 0, np.where(allowed, cost, 1 << 62).min(axis=1))).all()
    assert (most == np.where(none, 0, np.where(allowed, cost, -1).max(axis=1))).all()
    assert not much(least, most)


@pytest.mark.parametrize(("n", "k"), [(1, 1), (70_001, 3), (9_000, 64)])
def test_the_bound_of_many_rows_is_that_of_one_table(n: int, k: int) -> None:
    rng = np.random.default_rng([n, k])
    cost, loss = rng.integers(0, 1 << 30, (n, k)), rng.random((n, k))
    given = problem(loss, cost, 1 << 29)
    bound, _ = lagrangian(given, {"bits": 1e-9})
    assert bound == pytest.approx((loss + 1e-9 * cost).min(axis=1).sum() - 1e-9 * (1 << 29), rel=1e-12)


@pytest.mark.parametrize("n", [1, 7, 63, 600, 5_000])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_best_uniform_plan_of_any_number_of_rows(n: int, dtype: type) -> None:
    rng = np.random.default_rng(n)
    loss = rng.random((n, 6)).astype(dtype)
    found = best_uniform(problem(loss, np.ones((n, 6), np.int64), n), None)
    assert found is not None
    assert (found == loss.sum(axis=0, dtype=np.float64).argmin()).all()
