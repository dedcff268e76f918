"""Large tables: what the pass certifies is what the independent checker finds, on every shape that breaks such code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bitwright.core import npz
from bitwright.core.blocks import mapping
from bitwright.core.certificate import verify
from bitwright.core.problem import Limit, Problem, compact_bits
from bitwright.core.problem_file import load_problem, save_problem
from bitwright.core.solution import load_solution, verify_solution
from solvers import long_frontier, native, stream
from solvers.frontier import frontier
from solvers.hull import SOLVER
from tests.solvers.instances import RATES, instance

pytestmark = pytest.mark.skipif(native.library() is None, reason="the native library is not built")


@pytest.fixture
def streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small tables take the way of large ones."""
    plain = native.solve_table
    monkeypatch.setattr(stream, "CHECKED", 0)
    monkeypatch.setattr(native, "solve_table", lambda *args, **more: plain(*args, **{**more, "full_rows": 64}))


def sizes(rng: np.random.Generator, n: int) -> np.ndarray:
    kinds = [
        np.full(n, int(rng.integers(1, 10**6))),
        rng.integers(0, 5, n),
        np.maximum(1, np.rint(np.exp(rng.normal(10, 2, n)))).astype(np.int64),
        rng.choice([4096 * 1024, 4096 * 4096, 4096 * 14336], n),
    ]
    return kinds[rng.integers(len(kinds))]


def losses(rng: np.random.Generator, size: np.ndarray, rate: np.ndarray) -> np.ndarray:
    n, k = len(size), len(rate)
    weight = (size + 1e-3) * np.exp(rng.normal(0, rng.choice([1.5, 4.0]), n))
    bits = 4.0 ** -(rate / 16)
    kinds = [
        weight[:, None] * bits * np.exp(0.15 * rng.normal(size=(n, k))),
        size[:, None] * (20 - rate / 16) * (1 + 1e-7 * rng.normal(size=(n, k))),  # nearly equal slopes
        np.repeat(rng.random((1, k)), n, 0) * size[:, None],  # equal slopes
        rng.normal(size=(n, k)) * weight[:, None],  # negative, without order
        np.round(rng.random((n, k)) * 4),  # many ties
        1000 * weight[:, None] + weight[:, None] * bits * 1e-3,  # differences far below the values
    ]
    return kinds[rng.integers(len(kinds))]


def problem(seed: int, most: int = 3000) -> Problem:
    rng = np.random.default_rng(seed)
    n, k = (
        int(rng.integers(70, 3000) if most == 3000 else rng.integers(4096, most)),
        int(rng.choice([2, 3, 4, 4, 4, 5, 8, 8, 8, 12, 16])),
    )
    rate = np.sort(rng.choice(np.arange(1, 200), k, replace=False)) if rng.random() < 0.8 else rng.integers(1, 40, k)
    size = sizes(rng, n)
    loss = losses(rng, size, rate)
    loss[rng.random(n) < rng.choice([0.0, 0.3])] = 0.0
    if rng.random() < 0.3:
        forbidden = rng.random((n, k)) < 0.2
        forbidden[np.arange(n), rng.integers(0, k, n)] = False
        loss[forbidden] = np.inf
    loss = np.ldexp(loss, int(rng.choice([0, -40, 40]))).astype(rng.choice([np.float32, np.float64]))
    low, high = int(rate.min() * size.sum()), int(rate.max() * size.sum())
    share = rng.choice([rng.random(), 0.01 * rng.random(), 1.1])
    return Problem(loss, (compact_bits(size, rate, 16),), (Limit("bits", int(low + share * (high - low))),))


@pytest.mark.parametrize("seed", range(60))
def test_the_pass_certifies_what_the_checker_finds(seed: int, streamed: None) -> None:
    given = problem(seed)
    ours = SOLVER.solve(given, time_limit=0.5)
    bound = int(given.limits[0].value)
    resource = given.resources[0]
    whole = native.solve_table(given.loss, bound, size=resource.size, rate=resource.rate, seconds=0.5)
    assert ours.feasible == (whole.status != native.INFEASIBLE)
    assert verify(given, ours.choice, ours.certificate).ok
    if ours.feasible:
        scale = abs(whole.loss) + whole.slope * bound
        assert ours.certificate.lower_bound <= whole.loss + 1e-12 * scale
        if ours.certificate.status == "optimal" and whole.status == native.OPTIMAL:
            assert abs(ours.loss - whole.loss) <= 2e-12 * scale


@pytest.mark.parametrize("seed", range(60))
def test_rounds_in_any_order_of_the_rows(seed: int, streamed: None) -> None:
    """Rows by rising loss, or in runs of alike ones: what was passed says little of the rest."""
    given = problem(seed + 1000, 40_000)
    resource = given.resources[0]
    order = np.argsort(given.loss.min(axis=1), kind="stable")
    order = [order, np.concatenate([order[part::7] for part in range(7)])][seed % 2]
    loss, size, bound = given.loss[order], resource.size[order], int(given.limits[0].value)
    whole = native.solve_table(loss, bound, size=size, rate=resource.rate, seconds=0.5)
    for threads in (1, 3):
        answer = native.solve_table(
            loss, bound, size=size, rate=resource.rate, seconds=0.5, threads=threads, full_rows=64
        )
        assert (answer.status == native.INFEASIBLE) == (whole.status == native.INFEASIBLE)
        if answer.status != native.INFEASIBLE:
            scale = abs(whole.loss) + whole.slope * bound
            assert answer.cost <= bound
            assert answer.bound <= whole.loss + 1e-12 * scale
            assert answer.loss <= whole.loss + max(answer.gap, 0.0) + 1e-12 * scale


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("family", "k"), [("groups", 4), ("hetero", 4), ("groups", 8), ("hetero", 8)])
def test_single_precision_settles_only_what_is_certain(family: str, k: int, threads: int) -> None:
    """Values 2^20 times their differences: comparing sums in single precision would go wrong."""
    one = instance(family, 300_000, k, 3, dtype=np.float64)
    loss = (one.loss + 2.0**20 * one.loss.max(axis=1, keepdims=True)).astype(np.float32)
    given = Problem(loss, one.resources, one.limits)
    resource = given.resources[0]
    answer = native.solve_table(
        loss, int(given.limits[0].value), size=resource.size, rate=resource.rate, sizes=resource.sizes, threads=threads
    )
    solution = stream.certified(given, answer, "core", {})
    assert solution is not None
    assert verify(given, solution.choice, solution.certificate).ok


def test_a_file_is_mapped_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npz, "MAP_BYTES", 1 << 12)
    monkeypatch.setattr(stream, "CHECKED", 1 << 12)
    given = instance("hetero", 20_000, 4, 1, dtype=np.float32)
    save_problem(given, tmp_path / "problem.npz")
    mapped = load_problem(tmp_path / "problem.npz")
    assert mapping(mapped.loss) is not None
    assert mapping(mapped.resources[0].size) is not None
    ours, resident = SOLVER.solve(mapped), SOLVER.solve(given)
    assert np.array_equal(ours.choice, resident.choice)
    ours.save(tmp_path / "solution.json")
    assert ours.choice.dtype == np.uint8
    assert verify_solution(mapped, load_solution(tmp_path / "solution.json")).ok


@pytest.mark.parametrize("map_bytes", [200_000, 1])
def test_arrays_that_were_read_keep_their_values(
    map_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losses mapped, the shorter sizes read: only pages of files may be given back."""
    monkeypatch.setattr(npz, "MAP_BYTES", map_bytes)
    monkeypatch.setattr(stream, "CHECKED", 1)
    monkeypatch.setattr(long_frontier, "LONG", 1)
    given = instance("hetero", 20_000, 4, 1, dtype=np.float32)
    save_problem(given, tmp_path / "problem.npz")
    loaded = load_problem(tmp_path / "problem.npz")
    assert (mapping(loaded.resources[0].size) is None) == (map_bytes > 1)
    first, again = frontier(loaded), frontier(loaded)
    assert np.array_equal(first.cost, again.cost)
    assert first.cost[0] == frontier(given).cost[0]
    assert np.array_equal(SOLVER.solve(loaded).choice, SOLVER.solve(given).choice)
    assert np.array_equal(loaded.resources[0].size, given.resources[0].size)
    assert np.array_equal(loaded.loss, given.loss)


def test_a_mapped_file_that_lies_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bitwright.core.errors import InvalidProblem

    monkeypatch.setattr(npz, "MAP_BYTES", 1 << 12)
    path = tmp_path / "problem.npz"
    save_problem(instance("hetero", 5_000, 4, 1), path)
    data = bytearray(path.read_bytes())
    data[26:28] = b"\xff\xff"  # the local header's name runs past what the directory says
    path.write_bytes(data)
    with pytest.raises(InvalidProblem):
        load_problem(path)


def test_nan_is_found_in_the_scan() -> None:
    from bitwright.core.errors import InvalidProblem

    loss = np.ones((200_000, 4), np.float32)
    loss[150_001, 2] = np.nan
    with pytest.raises(InvalidProblem, match="NaN") as caught:
        Problem(loss, (compact_bits(np.ones(200_000), RATES[4]),), (Limit("bits", 10**9),))
    assert "150001, 2" in str(caught.value)
