"""The compiled path against its numpy oracle, and the streaming of large tables against both."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwright.core.certificate import certify
from bitwright.core.errors import Unsupported
from bitwright.core.problem import Limit, Problem
from solvers import native
from solvers.base import Deadline
from solvers.core_search import NUMPY, complete
from solvers.hull import SOLVER, at_limit
from solvers.hulls import build_hulls, relax
from solvers.native import place
from solvers.native.build import build
from solvers.reduce import reduce_problem
from tests.solvers.instances import instance
from tests.strategies import problems

#: Every hull is walked.
WHOLE = 1 << 40
needs_native = pytest.mark.skipif(native.library() is None, reason="the native library is not built")


def tables(problem: Problem) -> dict[str, object]:
    resource = problem.resources[0]
    return {"size": resource.size, "rate": resource.rate}


@needs_native
@given(data=st.data())
def test_small_tables_agree_with_numpy(data: st.DataObject) -> None:
    problem = data.draw(problems(units=(1, 12), formats=(1, 5)))
    reduced = reduce_problem(problem)
    row = reduced.limits[0]
    ours = native.solve_table(reduced.loss, row.bound, matrix=row.weight)
    oracle = at_limit(reduced, row, build_hulls(reduced.loss, row.weight), row.bound, Deadline.after(60))
    assert (ours.status == native.INFEASIBLE) == (oracle.blame is not None)
    if oracle.choice is not None:
        assert ours.status == native.OPTIMAL
        a, b = reduced.objective(ours.choice.astype(np.int64)), reduced.objective(oracle.choice)
        assert a == pytest.approx(
            b, rel=1e-12, abs=1e-12 * float(np.abs(reduced.loss[np.isfinite(reduced.loss)]).max())
        )


@needs_native
@pytest.mark.parametrize("family", ["layers", "hetero", "oddsize"])
def test_core_search_agrees_with_numpy(family: str) -> None:
    reduced = reduce_problem(instance(family, 150, 8, 2))
    row = reduced.limits[0]
    vertex = relax(build_hulls(reduced.loss, row.weight), row.bound)
    assert vertex is not None
    arguments = (reduced.loss, row.weight, vertex.choice, vertex.slope, vertex.slack, 60.0)
    plain = complete(*arguments, NUMPY)
    from solvers.hull import engine

    compiled = complete(*arguments, engine())
    assert engine().name == "native"
    assert plain.proved
    assert compiled.proved
    assert compiled.gap == pytest.approx(plain.gap, rel=1e-9)


@needs_native
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("family", "k"), [("groups", 4), ("hetero", 8), ("oddsize", 12)])
def test_the_bracketed_pass_agrees_with_the_whole_walk(family: str, k: int, dtype: type) -> None:
    problem = instance(family, 30_000, k, 1, dtype=dtype)
    bound = int(problem.limits[0].value)
    whole = native.solve_table(problem.loss, bound, full_rows=WHOLE, **tables(problem))
    streamed = native.solve_table(problem.loss, bound, full_rows=0, **tables(problem))
    assert streamed.listed < whole.listed
    assert whole.status == streamed.status == native.OPTIMAL
    assert streamed.bound == pytest.approx(whole.bound, rel=1e-10)
    one = certify(problem, whole.choice.astype(np.int64), {"bits": whole.slope})
    other = certify(problem, streamed.choice.astype(np.int64), {"bits": streamed.slope})
    assert other.loss == pytest.approx(one.loss, rel=1e-12)


@needs_native
@pytest.mark.parametrize("k", [4, 8])
@pytest.mark.parametrize("family", ["hetero", "oddsize"])
def test_rows_that_a_pass_leaves_out_have_no_better_plan(family: str, k: int) -> None:
    """The gap is wider than the first list's bracket: all rows of use are searched, found by a pass or one by one."""
    for seed in range(6):
        problem = instance(family, 20_000, k, seed, dtype=np.float32)
        bound = int(problem.limits[0].value)
        passed = native.solve_table(problem.loss, bound, **tables(problem))
        whole = native.solve_table(problem.loss, bound, full_rows=WHOLE, **tables(problem))
        assert passed.status == whole.status == native.OPTIMAL
        assert passed.loss == pytest.approx(whole.loss, rel=2e-12)


@needs_native
@pytest.mark.parametrize("bits", [2.0, 2.001, 7.999, 8.0, 12.0])
def test_streaming_at_the_ends_of_the_budget(bits: float) -> None:
    problem = instance("hetero", 20_000, 4, 1, bits=bits)
    bound = int(problem.limits[0].value)
    whole = native.solve_table(problem.loss, bound, full_rows=WHOLE, **tables(problem))
    streamed = native.solve_table(problem.loss, bound, full_rows=0, **tables(problem))
    assert streamed.status == whole.status
    losses = [problem.loss[np.arange(problem.n), a.choice].sum() for a in (whole, streamed)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-12)


@needs_native
def test_streaming_knows_infeasible() -> None:
    problem = instance("groups", 20_000, 4, 1, bits=1.9)
    answer = native.solve_table(problem.loss, int(problem.limits[0].value), full_rows=0, **tables(problem))
    assert answer.status == native.INFEASIBLE


@needs_native
@pytest.mark.parametrize(("family", "k"), [("groups", 4), ("hetero", 8)])
def test_single_precision_sieve(family: str, k: int) -> None:
    """Rows for sixteen lists: the plan is as good in double precision, and the number of threads changes nothing."""
    one = instance(family, 20_000, k, 4, dtype=np.float32)
    copies = 420
    rng = np.random.default_rng(0)
    loss = np.tile(one.loss, (copies, 1))
    loss *= np.exp(0.1 * rng.standard_normal((len(loss), 1), dtype=np.float32))
    size, rate = np.tile(one.resources[0].size, copies), one.resources[0].rate
    bound = int(one.limits[0].value) * copies
    a = native.solve_table(loss, bound, size=size, rate=rate)
    b = native.solve_table(loss, bound, size=size, rate=rate, threads=2)
    assert np.array_equal(a.choice, b.choice)
    spent = int((size * rate[a.choice]).sum())
    assert spent <= bound
    total = float(loss[np.arange(len(loss)), a.choice].astype(np.float64).sum())
    price, lower = a.slope * rate.astype(np.float64), -a.slope * bound
    for begin in range(0, len(loss), 1 << 19):
        part = slice(begin, begin + (1 << 19))
        lower += float((loss[part] + size[part, None] * price).min(axis=1).sum())
    assert abs(total - lower) <= 1e-11 * total + 1e-12 * a.slope * bound


@needs_native
@pytest.mark.parametrize(("family", "k"), [("groups", 8), ("hetero", 8), ("hetero", 5)])
def test_any_number_of_threads_gives_the_same_answer(family: str, k: int) -> None:
    """Threads share the rows that multipliers are looked for by: more threads than there are lists, too."""
    one = instance(family, 20_000, k, 5, dtype=np.float32)
    copies, rng = 40, np.random.default_rng(1)
    loss = np.tile(one.loss, (copies, 1))
    loss *= np.exp(0.1 * rng.standard_normal((len(loss), 1), dtype=np.float32))
    size, rate = np.tile(one.resources[0].size, copies), one.resources[0].rate
    bound = int(one.limits[0].value) * copies
    alone = native.solve_table(loss, bound, size=size, rate=rate)
    for threads in (2, 3, 11):
        shared = native.solve_table(loss, bound, size=size, rate=rate, threads=threads)
        assert np.array_equal(alone.choice, shared.choice)
        assert alone[1:] == shared[1:]


@needs_native
@pytest.mark.parametrize(("k", "huge"), [(4, 3), (8, 3), (8, 5_000), (3, 40), (12, 40)])
def test_a_few_sizes_beyond_32_bits_go_beside_the_others(k: int, huge: int) -> None:
    """AVX2 multiplies sizes of 32 bits. One larger one had the whole table go in double precision: 18 times a read."""
    one = instance("hetero", 300_000, 12 if k == 3 else k, 6, dtype=np.float32)
    loss, rate, rng = one.loss[:, :k].copy(), one.resources[0].rate[:k], np.random.default_rng(k)
    size = one.resources[0].size.copy()
    large = np.append(rng.choice(len(size), huge - 2, replace=False), [0, len(size) - 1])
    size[large] = 2**32 + rng.integers(0, 2**34, huge)
    loss[large] *= (size[large] / one.resources[0].size[large])[:, None]
    bound = int(size.sum()) * int(rate.min() + 0.4 * (rate.max() - rate.min()))
    got = native.solve_table(loss, bound, size=size, rate=rate)
    assert int((size * rate[got.choice]).sum()) == got.cost <= bound
    price = got.slope * size[:, None] * rate
    lower = float((loss.astype(np.float64) + price).min(axis=1).sum()) - got.slope * bound
    scale = abs(got.loss) + got.slope * bound
    assert got.bound == pytest.approx(lower, abs=1e-12 * scale)
    assert got.loss == pytest.approx(float(loss[np.arange(len(loss)), got.choice].sum(dtype=np.float64)), rel=1e-12)
    plain = native.solve_table(loss.astype(np.float64), bound, size=size, rate=rate)
    assert got.loss == pytest.approx(plain.loss, abs=1e-9 * got.loss)
    assert np.array_equal(native.solve_table(loss, bound, size=size, rate=rate, threads=2).choice, got.choice)


@needs_native
def test_large_problems_take_the_short_cut() -> None:
    problem = instance("hetero", 70_000, 4, 3)
    solution = SOLVER.solve(problem)
    assert solution.certificate.status == "optimal"
    assert solution.info["engine"] == "native"
    tight = Problem(problem.loss, problem.resources, (Limit("bits", 1),))
    assert not SOLVER.solve(tight).feasible


def test_numpy_alone_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "library", lambda: None)
    problem = instance("hetero", 224, 8, 1)
    solution = SOLVER.solve(problem)
    assert solution.certificate.status == "optimal"
    assert solution.info["engine"] == "numpy"


def test_a_library_of_other_sources_is_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: after an update of the sources the old library was called with new arguments, and crashed."""
    assert build() == place.library_path()
    monkeypatch.setattr(place, "FLAGS", (*place.FLAGS, "-DOTHER"))
    native.library.cache_clear()
    try:
        assert not place.library_path().exists()
        assert native.library() is None
        with pytest.raises(Unsupported, match="not built from these sources") as refused:
            native.solve_table(np.ones((2, 2)), 3, matrix=np.ones((2, 2), np.int64))
        assert refused.value.hint == "python -m solvers.native.build"
    finally:
        native.library.cache_clear()
