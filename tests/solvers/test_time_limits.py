"""The caller's clock, by clocks of our own: what strikes after so many looks, not after so many seconds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest

from bitwright.core.certificate import verify
from bitwright.core.errors import OutOfResources, Unsupported
from bitwright.core.problem import Problem, compact_bits
from solvers import base, hulls, native, solve
from solvers.base import LATE, Deadline, Outcome, Pace, Solver
from solvers.capabilities import capabilities, features
from solvers.catalog import SOLVERS
from solvers.greedy import greedy
from tests.solvers.cost_tables import UNSTREAMED
from tests.solvers.instances import RATES, instance
from tests.solvers.test_sieve import tailed

FAR = 10**12

SHORT = instance("correlated", 120, 4, 0)
#: Solvers that take it, of those whose packages are there.
TAKING = [
    name
    for name, entry in ((name, SOLVERS.get(name)) for name in SOLVERS.names())
    if entry.available and not capabilities(entry).missing(features(SHORT))
]


def equal_slopes(n: int, k: int) -> Problem:
    given = instance("tails", n, k, 0)
    size, rate = given.resources[0].size, np.array(RATES[k])
    assert size is not None
    loss = size[:, None] * (20 - rate / 16)
    return Problem(loss / loss.sum(), (compact_bits(size, rate, 16),), given.limits)


HARD = {
    "tails": lambda: instance("tails", 3000, 8, 0),
    "correlated": lambda: instance("correlated", 400, 8, 0),
    "similar in single precision": lambda: instance("similar", 3000, 4, 1, dtype=np.float32),
    "uneven": lambda: instance("hetero", 20_000, 8, 0, dtype=np.float32),
    "equal slopes": lambda: equal_slopes(600, 4),
}


@pytest.fixture
def looks() -> Iterator[None]:
    if native.library() is None:
        pytest.skip("needs the native library")
    yield
    native.required().bw_looks_left(-1)


def answered(
    given: Problem, looks_left: int, *, matrix: bool = False, full_rows: int = 1 << 14, threads: int = 1
) -> native.TableAnswer:
    resource = given.resources[0]
    native.required().bw_looks_left(looks_left)
    costs = {"matrix": resource.costs()} if matrix else {"size": resource.size, "rate": resource.rate}
    bound = int(given.limits[0].value)
    return native.solve_table(given.loss, bound, full_rows=full_rows, threads=threads, **costs)  # type: ignore[arg-type]


@pytest.mark.parametrize("matrix", [False, True])
@pytest.mark.parametrize("kind", HARD)
def test_whenever_the_clock_strikes_there_is_a_plan_with_a_valid_bound(kind: str, matrix: bool, looks: None) -> None:
    given = HARD[kind]()
    limit = int(given.limits[0].value)
    best = answered(given, FAR, matrix=matrix)
    used = FAR - native.required().bw_looks_left(-1)
    scale = abs(best.loss) + best.slope * limit
    for left in sorted({*range(12), *np.unique(np.geomspace(12, used + 1, 25).astype(int)).tolist()}):
        for full_rows, threads in ((64, 1), (64, 3), (UNSTREAMED if matrix else 1 << 14, 1)):
            answer = answered(given, left, matrix=matrix, full_rows=full_rows, threads=threads)
            rows = np.arange(given.n)
            assert answer.cost == int(given.resources[0].costs()[rows, answer.choice].sum()) <= limit
            assert answer.loss == pytest.approx(
                float(given.loss.astype(np.float64)[rows, answer.choice].sum()), rel=1e-11
            )
            assert answer.bound <= best.loss + 1e-12 * scale
            if answer.status == native.OPTIMAL:
                assert answer.loss <= best.loss + 2e-12 * scale


def test_a_clock_that_struck_before_anything_leaves_the_cheapest_plan_or_says_that_none_fits(looks: None) -> None:
    given = instance("hetero", 3000, 4, 0)
    assert answered(given, 0, full_rows=64).status == native.LATE
    tight = given.with_limit("bits", 1)
    assert answered(tight, 0).status == native.INFEASIBLE


@pytest.mark.parametrize("family", ["tails", "hetero"])
def test_long_steps_look_at_the_clock_on_the_way(family: str, looks: None) -> None:
    """Regression: the sorts, lists and first branch of a core of all rows looked at no clock (0.4 s, 300,000 rows)."""
    given = instance(family, 60_000, 8, 0)
    answered(given, FAR, matrix=True, full_rows=UNSTREAMED)
    used = FAR - native.required().bw_looks_left(-1)
    assert used > given.n * given.k >> 14


def test_hundreds_of_giants_leave_no_endless_combinations(looks: None) -> None:
    """Regression: each combination of a few cells gained a little more, for 40 of 46 seconds."""
    loss, size, rate = tailed(np.random.default_rng(5))
    loss, rate = np.hstack([loss, 0.97 * loss[:, 4:]]).astype(np.float32), np.hstack([rate, rate[4:] + 2])
    bound = int(size.sum()) * int(rate.min() + 0.3 * (rate.max() - rate.min()))
    native.required().bw_looks_left(FAR)
    answer = native.solve_table(loss, bound, size=size, rate=rate, full_rows=UNSTREAMED, seconds=120)
    assert FAR - native.required().bw_looks_left(-1) < 120_000
    assert answer.gap < 2e-5 * answer.loss


@pytest.mark.parametrize("name", TAKING)
@pytest.mark.parametrize("calls", [2, 4, 9])
def test_every_solver_ends_honestly_when_time_runs_out(name: str, calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of deadlines jumps to their end at one of the first looks."""
    given, looked = SHORT, 0

    def monotonic() -> float:
        nonlocal looked
        looked += 1
        return time.monotonic() + (1e6 if looked > calls else 0.0)

    monkeypatch.setattr(base, "time", SimpleNamespace(monotonic=monotonic, thread_time=time.thread_time))
    try:
        solution = solve(given, name, time_limit=2.0)
    except (OutOfResources, Unsupported):
        return
    assert solution.feasible
    assert verify(given, solution.choice, solution.certificate).ok


def test_what_a_solver_takes_to_be_imported_is_the_callers_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: its clock began after the import, a tenth of a limit of one second."""
    clock, told = [0.0], []

    def load(name: str) -> SimpleNamespace:
        clock[0] += 0.6
        return SimpleNamespace(solve=lambda problem, time_limit, seed: told.append(time_limit))

    monkeypatch.setattr(base, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr("solvers.SOLVERS", SimpleNamespace(load=load))
    for limit in (1.0, 0.5, 1e-6):
        solve(SHORT, "milp", time_limit=limit)
    assert told == pytest.approx([0.4, 1e-3, 1e-6])


def test_what_is_not_expected_to_end_in_time_is_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "MANY_CELLS", 1)
    monkeypatch.setattr(base, "REDUCING", 1.0)
    begun = []

    def method(reduced: object, deadline: Deadline, seed: int) -> Outcome:
        begun.append(deadline)
        return Outcome(None)

    given = instance("hetero", 50, 4, 0)
    solution = Solver("greedy", method).solve(given, time_limit=10.0)
    assert not begun
    assert solution.info["stopped"] == LATE
    assert verify(given, solution.choice, solution.certificate).ok


def test_one_more_round_is_begun_where_it_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 0.0, 0.0, 3.0, 5.0, 8.0])
    monkeypatch.setattr(base, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    pace = Pace(Deadline.after(9.0))
    assert [pace.another() for _ in range(4)] == [True, True, True, False]  # 8 and 3 more are beyond 9


def test_a_loaded_processor_makes_what_is_kept_back_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "time", SimpleNamespace(monotonic=lambda: 0.0))
    busy = Deadline(10.0, 10.0, load=4.0)
    assert busy.keeping(1.0).left == 6.0
    assert busy.keeping(5.0).left == 5.0
    assert busy.fits(2.4)
    assert not busy.fits(2.6)


@pytest.mark.parametrize("seed", range(6))
def test_hulls_of_blocks_are_those_of_the_whole(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(seed)
    loss = np.round(rng.random((500, 5)), seed % 3 + 1)
    loss[rng.random((500, 5)) < 0.2] = np.inf
    loss[:, 2] = 1.0
    cost = rng.integers(0, 9, (500, 5))
    whole = hulls.build_hulls(loss, cost)
    monkeypatch.setattr(hulls, "BLOCK", 64)
    parts = hulls.build_hulls(loss, cost)
    assert (parts.cheapest == whole.cheapest).all()
    assert (parts.cost, parts.loss) == (whole.cost, whole.loss)
    for name in ("group", "before", "after", "dcost", "dloss", "slope"):
        assert (getattr(parts.steps, name) == getattr(whole.steps, name)).all()
    left = iter([1.0] * 5 + [0.0] * 9)
    assert hulls.hulls_within(loss, cost, lambda: next(left)) is None


def test_greedy_without_time_for_its_levels_takes_the_vertex(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("solvers.greedy.SORTING", np.inf)
    given = instance("hetero", 200, 4, 0)
    solution = Solver("greedy", greedy).solve(given)
    assert solution.feasible
    assert 0 <= solution.certificate.relative_gap < 0.1
