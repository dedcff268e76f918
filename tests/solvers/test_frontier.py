"""The frontier: a lower bound everywhere, attained at its breakpoints, and any plan without solving from scratch."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bitwright.core.certificate import verify
from bitwright.core.errors import InvalidProblem, Unsupported
from bitwright.core.problem import Limit, Problem, Resource, compact_bits
from solvers import long_frontier, native, solve
from solvers.frontier import draw, frontier
from tests.solvers.instances import RATES, instance
from tests.strategies import problems


@given(data=st.data())
def test_every_breakpoint_is_attained(data: st.DataObject) -> None:
    problem = data.draw(problems(units=(1, 5), formats=(1, 4)))
    found = frontier(problem)
    assert (np.diff(found.cost) > 0).all()
    assert (np.diff(found.loss) < 0).all()
    assert (np.diff(found.gain) <= 1e-12 * found.gain[0]).all()
    for cost, loss in zip(found.cost.tolist(), found.loss.tolist(), strict=True):
        solution = found.at(cost, time_limit=60.0)
        assert solution.certificate.status == "optimal"
        assert solution.loss == pytest.approx(loss, rel=1e-9, abs=1e-10 * float(np.abs(found.loss).max()))


@given(data=st.data())
def test_any_budget_agrees_with_a_fresh_solve(data: st.DataObject) -> None:
    problem = data.draw(problems(units=(1, 5), formats=(1, 4)))
    assume(problem.limits)
    value = data.draw(st.integers(0, 3000))
    quick, fresh = frontier(problem).at(value), solve(problem.with_limit(problem.limits[0].name, value), "hull")
    assert quick.certificate.status == fresh.certificate.status
    assert quick.certificate.blame == fresh.certificate.blame
    if quick.feasible:
        assert quick.loss == pytest.approx(fresh.loss, rel=1e-12, abs=1e-12)


def test_bound_lies_below_the_plan_and_uniform_plans_lie_above() -> None:
    problem = instance("hetero", 224, 8, 0)
    found = frontier(problem)
    for value in np.linspace(float(found.cost[0]), float(found.cost[-1]), 20).astype(int).tolist():
        solution = found.at(value)
        assert verify(problem.with_limit("bits", value), solution.choice, solution.certificate).ok
        assert solution.certificate.status == "optimal"
        assert found.bound(value) <= solution.loss * (1 + 1e-12)
    for uniform in found.uniform:
        assert found.bound(uniform.cost) <= uniform.loss * (1 + 1e-12)
    assert found.bound(int(found.cost[0]) - 1) == float("inf")
    assert not found.at(int(found.cost[0]) - 1).feasible


def test_a_limit_need_not_be_there() -> None:
    problem = Problem(np.array([[3.0, 1.0], [3.0, 2.0]]), (compact_bits([1, 1], [1, 2]),), format_names=("a", "b"))
    found = frontier(problem)
    assert found.limit == "bits"
    assert found.cost.tolist() == [2, 3, 4]
    assert found.loss.tolist() == [6.0, 4.0, 3.0]
    assert found.gain.tolist() == [2.0, 1.0, 0.0]
    assert [u.name for u in found.uniform] == ["a", "b"]


def test_a_step_below_the_rounding_of_the_total_is_no_point() -> None:
    """Found by `make sweeps`: 1e-31 saved of a loss of 1 made two points of one loss."""
    cost = Resource("bytes", matrix=np.array([[0, 0], [0, 1]]))
    found = frontier(Problem(np.array([[-1.0, 0.0], [3e-31, 0.0]]), (cost,), (Limit("bytes", 0),)))
    assert found.cost.tolist() == [0]
    assert found.loss.tolist() == [-1.0]
    assert found.gain.tolist() == [0.0]
    assert found.bound(1) == -1.0


def test_float_resource() -> None:
    cost = Resource("latency_us", matrix=np.array([[0.1, 0.35], [0.2, 0.3]]))
    found = frontier(Problem(np.array([[3.0, 1.0], [3.0, 2.0]]), (cost,)))
    assert found.cost == pytest.approx([0.3, 0.4, 0.65])
    assert found.gain == pytest.approx([10.0, 8.0, 0.0])


def test_files_and_thinning(tmp_path: Path) -> None:
    found = frontier(instance("layers", 300, 8, 1))
    data = json.loads(json.dumps(found.to_json(50)))
    assert data["breakpoints"] == len(found) > len(data["points"])
    assert data["points"][0]["cost"] == found.cost[0]
    assert data["points"][-1]["gain_per_unit"] == 0.0
    assert data["knee"]["rule"]
    rows = list(csv.DictReader(io.StringIO(found.to_csv(50))))
    assert [r["kind"] for r in rows].count("knee") == 1
    assert sum(r["kind"].startswith("uniform:") for r in rows) == 8
    assert len(frontier(instance("layers", 300, 8, 1), points=20)) <= 23
    draw(found, str(tmp_path / "frontier.png"))
    assert (tmp_path / "frontier.png").read_bytes()[:4] == b"\x89PNG"


def test_what_a_frontier_refuses() -> None:
    two = (compact_bits([1], [1, 2]), Resource("bytes", matrix=np.array([[1, 2]])))
    with pytest.raises(InvalidProblem, match="which limit"):
        frontier(Problem(np.ones((1, 2)), two))
    with pytest.raises(Unsupported):
        frontier(Problem(np.ones((1, 2)), two, (Limit("bits", 2), Limit("bytes", 2))), "bits")
    with pytest.raises(InvalidProblem):
        frontier(Problem(np.ones((1, 2)), two), "latency_us")


def _rows(kind: str, n: int, k: int, rng: np.random.Generator) -> np.ndarray:
    """Losses by rising rate: convex but for noise, in any order, of few values, of equal slopes, or all rows alike."""
    falling = np.exp2(-2.0 * np.arange(k)) * rng.lognormal(0, 2, (n, 1))
    if kind == "noise":
        return falling * rng.lognormal(0, 0.3, (n, k))
    if kind == "any":
        return rng.normal(size=(n, k))
    if kind == "few":
        return rng.integers(-2, 3, (n, k)).astype(float)
    if kind == "equal":
        return rng.integers(1, 3, (n, 1)) * np.arange(k, 0.0, -1.0)
    return np.repeat(falling[:1], n, axis=0)


def _slopes(loss: np.ndarray, rate: np.ndarray, per: float, window: int) -> np.ndarray:
    """Bits of the minmax slopes (n, k - 1) over intervals of at most `window` formats, in single precision."""
    k = loss.shape[1]
    slopes: dict[int, np.ndarray] = {}
    for a in range(k - 1):
        most: np.ndarray | None = None
        for b in range(min(k - 1, a + window), a, -1):
            slope = ((loss[:, a] - loss[:, b]) * np.float32(per / float(rate[b] - rate[a]))).view(np.int32)
            most = slope if most is None else np.maximum(most, slope)
            slopes[b] = np.minimum(slopes.get(b, most), most)
    return np.stack([slopes[j] for j in range(1, k)], axis=1)


@pytest.mark.skipif(native.library() is None, reason="the native library is not built")
@given(
    kind=st.sampled_from(["noise", "any", "few", "equal", "alike"]),
    k=st.integers(2, 8),
    sizes=st.sampled_from(["equal", "small", "thirds", "any", "tails"]),
    shift=st.sampled_from([-60, 0, 60]),
    seed=st.integers(0, 2**32),
)
def test_stretches_of_single_precision_are_those_of_numpy(kind: str, k: int, sizes: str, shift: int, seed: int) -> None:
    """Whatever instructions the machine has: costs exactly, what is saved but for the bits that are not kept."""
    n, rng = 514, np.random.default_rng(seed)
    loss = np.ldexp(_rows(kind, n, k, rng), shift).astype(np.float32)
    loss[512:] = 0  # no slopes: the rows that are left over of whole vectors go another way
    room = np.empty(n * k + 16, np.float32)
    aligned = room[-room.ctypes.data % 64 // 4 :][: n * k].reshape(n, k)
    size = {
        "equal": np.full(n, 128),
        "small": 4096 * rng.integers(1, 5000, n),  # multiples of a power of two: summed in one number with their slopes
        "thirds": 12288 * rng.integers(1, 1500, n),  # whose divisor is no power of two
        "any": rng.integers(1, 2**31, n),
        "tails": 1 + np.rint(np.exp(rng.normal(15, 3, n))).astype(np.int64),  # a few beyond what 2^17 rows may have
    }[sizes]
    rate, order = np.cumsum(rng.integers(1, 40, k)), rng.permutation(k)
    scale = np.ldexp(float(size.mean()), -shift)
    shuffled, back = order.argsort(), order.astype(np.int32)
    assert (rate[shuffled][back] == rate).all()
    aligned[:] = loss[:, shuffled]
    found = native.frontier(
        aligned, back, size=size, rate=rate[shuffled], sizes=compact_bits(size, rate).sizes, scale=scale
    )
    per = scale / int(size.max())
    slopes = _slopes(loss, rate, per, k - 1 if k <= 5 else 3)
    bad = (slopes < 0).any(axis=1) | (np.diff(slopes, axis=1) > 0).any(axis=1)
    slopes[bad] = _slopes(loss, rate, per, k - 1)[bad].clip(min=0)
    cost, saved, kept = np.zeros_like(found.cost), np.zeros_like(found.saved), np.zeros_like(found.saved)
    share = np.float32(size.max()) / size.astype(np.float32)
    for j in range(1, k):
        slope, step = slopes[:, j - 1].copy().view(np.float32), int(rate[j] - rate[j - 1])
        bits = (slope * share).view(np.int32)
        used = bits >> 19 >= 16  # a slope that is not next to none
        np.add.at(cost, bits[used] >> 19, size[used] * step)
        np.add.at(saved, bits[used] >> 19, slope[used].astype(np.float64) * step / per)
        # All but three bits of the mantissa are kept, and those are 3.5 on average.
        middle = (bits & ~7).view(np.float32) + np.ldexp(3.5, (bits >> 23) - 150)
        np.add.at(kept, bits[used] >> 19, (middle * size / float(np.float32(size.max())) * step / per)[used])
    assert (found.cost == cost).all()
    assert found.saved == pytest.approx(saved if sizes in ("any", "tails") else kept, rel=1e-12)
    assert found.saved == pytest.approx(saved, rel=native.SINGLE)
    magnitude = float(np.abs(loss).sum(dtype=np.float64))
    assert found.last == pytest.approx(loss.min(axis=1).sum(dtype=np.float64), abs=1e-14 * magnitude)


@pytest.mark.skipif(native.library() is None, reason="the native library is not built")
@pytest.mark.parametrize("spread", [1e-3, 0.3], ids=["narrow", "wide"])
@pytest.mark.parametrize("sizes", ["equal", "small", "any"])
@pytest.mark.parametrize("k", [4, 6, 8])
def test_nearly_equal_slopes_add_up_as_in_double_precision(k: int, sizes: str, spread: float) -> None:
    """Most rows are not convex, so that all are done in full from the second chunk on, and few stretches take all."""
    n, rng, rate = 290_000, np.random.default_rng(k), np.array(RATES[k])
    size = {"equal": np.full(n, 128), "small": 64 * rng.integers(1, 300, n), "any": rng.integers(1, 2**31, n)}[sizes]
    # The last third is convex and spread over many stretches: the way of most blocks changes again.
    noise = spread * rng.normal(size=(n, k - 1)).clip(-3, 3)
    noise[2 * n // 3 :] = np.exp(rng.normal(0, 2, (n - 2 * n // 3, 1))) * 0.5 ** np.arange(k - 1) - 1
    saves = np.diff(rate) * (1 + noise)
    loss = size[:, None] * np.pad(np.cumsum(saves[:, ::-1], axis=1)[:, ::-1], ((0, 0), (0, 1)))
    single, order = np.ascontiguousarray(loss, np.float32), np.arange(k, dtype=np.int32)
    known = compact_bits(size, rate).sizes
    scale = 1.2 * float(size.mean())  # slopes near 1 lie in the middle of a stretch
    ours, doubles = (
        native.frontier(table, order, size=size, rate=rate, sizes=known, scale=scale)
        for table in (single, single.astype(np.float64))
    )
    assert int(ours.cost.sum()) == int(doubles.cost.sum())
    assert np.abs(ours.cost - doubles.cost).sum() <= 1e-4 * doubles.cost.sum()
    assert np.abs(ours.saved - doubles.saved).sum() <= 1e-4 * doubles.saved.sum()
    assert ours.saved.sum() == pytest.approx(doubles.saved.sum(), rel=native.SINGLE)
    assert ours.last == pytest.approx(doubles.last, abs=1e-12 * float(single.sum(dtype=np.float64)))


@pytest.mark.skipif(native.library() is None, reason="the native library is not built")
@pytest.mark.parametrize("saves", [1.0, float(np.nextafter(np.float32(2), np.float32(0)))], ids=["least", "most"])
@pytest.mark.parametrize("more", [0, 1])
def test_sums_of_small_sizes_reach_their_limit(saves: float, more: int) -> None:
    """2,048 rows of one stretch whose sizes sum to all that one number holds, and to one more, then rows of size 1."""
    n, divisor = 3 * 2048, 16
    size = np.ones(n, np.int64)
    size[:2048] = 8128  # 2,048 of them: 2^24 - 2^17
    size[7] += more
    size *= divisor
    loss = np.zeros((n, 2), np.float32)
    loss[:, 0] = saves
    rate = np.array([1, 2])
    found = native.frontier(
        loss,
        np.array([0, 1], np.int32),
        size=size,
        rate=rate,
        sizes=compact_bits(size, rate).sizes,
        scale=8128.0 * divisor,
    )
    slope = np.float32(saves) * np.float32(8128 * divisor / int(size.max()))
    stretch = (slope * (np.float32(size.max()) / size.astype(np.float32))).view(np.int32) >> 19
    assert (found.cost == np.bincount(stretch, size, len(found.cost))).all()
    assert found.saved == pytest.approx(np.bincount(stretch, loss[:, 0], len(found.cost)), rel=native.SINGLE)
    assert found.last == 0.0


@pytest.mark.skipif(native.library() is None, reason="the native library is not built")
@pytest.mark.parametrize("more", [0, 1])
def test_sums_of_a_few_large_sizes_reach_their_limit(more: int) -> None:
    """Rows whose sizes sum to all that a double holds one by one, and to one more, between rows of size 1."""
    n, rng = 1 << 20, np.random.default_rng(more)
    size = np.ones(n, np.int64)
    size[2048 : 2048 + 5] = [2**51, 2**51, 2**51, 2**51 - 2045 + more, 1]  # of 2,048 rows: 2^53 - 1
    size[[9_000, 500_001]] = 2**51 - 1, 2**51 - 3
    loss = (rng.choice([1.0, 1.5], (n, 1)) * [2, 1] * size[:, None]).astype(np.float32)
    assert size[2048:4096].sum() == 2**53 - 1 + more
    rate = np.array([1, 2])
    found = native.frontier(
        loss, np.array([0, 1], np.int32), size=size, rate=rate, sizes=compact_bits(size, rate).sizes, scale=1.0
    )
    stretch = np.float32([1.0, 1.5]).view(np.int32) >> 19
    steep = loss[:, 1] / size > 1.2
    assert found.cost[stretch].tolist() == [size[~steep].sum(), size[steep].sum()]
    assert found.cost.sum() == size.sum()
    assert found.saved.sum() == pytest.approx(loss[:, 1].sum(dtype=np.float64), rel=native.SINGLE)


@pytest.mark.skipif(native.library() is None, reason="the native library is not built")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("family", "k"),
    [("groups", 4), ("groups", 3), ("hetero", 5), ("hetero", 7), ("hetero", 8), ("oddsize", 12), ("groups", 10)],
)
def test_the_long_frontier_is_part_of_the_whole_one(
    family: str, k: int, dtype: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = k if k in RATES else 8 if k < 8 else 12
    one = instance(family, 6_003, of, 2, dtype=dtype)  # not a whole number of vectors, formats in any order
    bits, shuffled = one.resources[0], np.random.default_rng(k).permutation(of)[:k]
    assert bits.rate is not None
    resource = compact_bits(bits.size, bits.rate[shuffled], bits.rate_den)
    one = Problem(one.loss[:, shuffled], (resource,), one.limits)
    whole = frontier(one)
    monkeypatch.setattr(long_frontier, "LONG", 0)
    ours = frontier(one)
    assert 50 < len(ours) < len(whole)
    assert ours.long is not None
    assert ours.cost[0] == whole.cost[0]
    assert ours.cost[-1] == whole.cost[-1]
    assert (np.diff(ours.cost) > 0).all()
    for cost, loss in zip(ours.cost[::7].tolist(), ours.loss[::7].tolist(), strict=True):
        # Slopes are found and told apart in single precision.
        hair = native.SINGLE * (whole.bound(cost) - float(whole.loss[-1])) + 1e-12 * loss
        assert whole.bound(cost) - hair <= loss <= whole.bound(cost) * (1 + 1e-6)
    for cost in np.append(np.linspace(ours.cost[0], ours.cost[-1], 200), ours.cost):
        assert whole.bound(cost) * 0.99 <= ours.bound(cost) <= whole.bound(cost) * (1 + 1e-13)
    assert [u.cost for u in ours.uniform] == [u.cost for u in whole.uniform]
    assert [u.loss for u in ours.uniform] == pytest.approx([u.loss for u in whole.uniform], rel=1e-12)
    for value in (int(ours.cost[len(ours) // 2]) + 1, int(ours.cost[0]), int(ours.cost[-1]) - 1):
        moved = one.with_limit("bits", value)
        solution = ours.at(value)
        assert verify(moved, solution.choice, solution.certificate).ok
        assert solution.loss == pytest.approx(whole.at(value).loss, rel=1e-9)
        assert ours.bound(value) <= solution.loss


@pytest.mark.skipif(native.library() is None, reason="the native library is not built")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("k", [2, 3, 4, 7, 8, 12])
def test_a_long_frontier_takes_forbidden_formats_and_equal_rates(
    k: int, dtype: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(k)
    one = instance("hetero", 4_001, 12, 3, dtype=dtype)
    loss, bits = one.loss[:, rng.permutation(12)[:k]].copy(), one.resources[0]
    loss[rng.random(loss.shape) < 0.3] = np.inf
    rows = np.isinf(loss).all(axis=1)
    loss[rows, rng.integers(0, k, rows.sum())] = 1.0
    rate = np.concatenate([[16, 32], rng.integers(16, 24, k - 2)])
    one = Problem(loss, (compact_bits(bits.size, rng.permutation(rate)),), (Limit("bits", 0),))
    whole = frontier(one)
    monkeypatch.setattr(long_frontier, "LONG", 0)
    ours = frontier(one)
    assert ours.long is not None
    assert (ours.cost[0], ours.cost[-1]) == (whole.cost[0], whole.cost[-1])
    for cost, least in zip(ours.cost.tolist(), ours.loss.tolist(), strict=True):
        hair = native.SINGLE * (whole.bound(cost) - float(whole.loss[-1])) + 1e-12 * least
        assert whole.bound(cost) - hair <= least <= whole.bound(cost) * (1 + 1e-6)
        assert whole.bound(cost) * 0.99 <= ours.bound(cost) <= whole.bound(cost) * (1 + 1e-13)
    assert [u.cost for u in ours.uniform] == [u.cost for u in whole.uniform]
    value = int(ours.cost[len(ours) // 2])
    solution = ours.at(value)
    assert verify(one.with_limit("bits", value), solution.choice, solution.certificate).ok
    assert ours.bound(value) <= solution.loss


@pytest.mark.skipif(native.library() is None, reason="the native library is not built")
@pytest.mark.parametrize("unit", [1e-80, 1e-50, 1e60])
def test_a_long_frontier_keeps_its_points_in_any_unit_of_loss(unit: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Differences that single precision cannot hold were slopes of 0, and the frontier one point."""
    monkeypatch.setattr(long_frontier, "LONG", 0)
    one = instance("hetero", 3_000, 12, 1)
    usual, moved = frontier(one), frontier(Problem(one.loss * unit, one.resources, one.limits))
    assert len(usual) > 100
    assert moved.cost.tolist() == usual.cost.tolist()
    assert moved.loss == pytest.approx(usual.loss * unit, rel=1e-6)


@pytest.mark.skipif(native.library() is None, reason="the native library is not built")
@given(
    kind=st.sampled_from(["noise", "any", "few", "equal", "alike"]),
    k=st.integers(2, 16),
    even=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_stretches_of_double_precision_are_those_of_numpy(kind: str, k: int, even: bool, seed: int) -> None:
    """Any number of formats: costs of rows whose slopes lie within stretches exactly, all that is saved closely."""
    n, rng = 131, np.random.default_rng(seed)
    loss = _rows(kind, n, k, rng)
    size = np.full(n, 2**40) if even else rng.integers(1, 2**44, n)
    rate = np.cumsum(rng.integers(1, 40, k))
    order = np.arange(k, dtype=np.int32)
    scale = float(size.mean())
    found = native.frontier(loss, order, size=size, rate=rate, sizes=compact_bits(size, rate).sizes, scale=scale)
    best = np.full((n, k), np.inf)
    for a in range(k - 1):
        after = [(loss[:, a] - loss[:, b]) / float(rate[b] - rate[a]) for b in range(a + 1, k)]
        most = np.maximum.accumulate(np.stack(after)[::-1], axis=0)[::-1]
        best[:, a + 1 :] = np.minimum(best[:, a + 1 :], most.T)
    slopes = best[:, 1:].clip(min=0)
    steps = np.diff(rate)
    edges = slopes * scale / size[:, None]
    least, top = (np.float32(edges * (1 + side * 2.0**-20)).view(np.int32) >> 19 for side in (-1, 1))
    assert found.saved.sum() == pytest.approx((slopes * steps)[top >= 16].sum(), rel=native.SINGLE)
    sure, amount = (least == top) & (top >= 16), size[:, None] * steps
    cost = np.zeros_like(found.cost)
    np.add.at(cost, top[sure], amount[sure])
    assert (found.cost >= cost).all()
    assert int(found.cost.sum()) == int(amount[top >= 16].sum())
    assert found.last == pytest.approx(loss.min(axis=1).sum(), abs=1e-14 * np.abs(loss).sum())
