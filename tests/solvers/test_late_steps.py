"""Long steps look at the caller's clock on their way: a clock that goes on by one at each look strikes at each."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bitwright.core import problem_check
from bitwright.core.bound import lagrangian
from bitwright.core.certificate import impossible, total_loss, violations
from bitwright.core.errors import OutOfResources
from bitwright.core.problem import Limit, Pairs, Problem, Resource
from solvers import base, brute, patch, solve, two_halves, vector
from solvers.base import Deadline, Outcome, Solver
from solvers.child import Child
from solvers.covers import find_cover
from solvers.dual import Rows, maximise
from solvers.external import Backend, Reply, outside
from solvers.finish import best_uniform
from solvers.fusion import fusion
from solvers.fusion_menu import blocks_of, menu_of
from solvers.linear_model import building
from solvers.pair_dual import Bound, _disjoint, _sweep, value_of
from solvers.pair_field import Field
from solvers.pairs import DIGITS, _rounded
from solvers.patch import patched
from solvers.reduce import Reduced, reduce_problem
from solvers.repair import repair
from tests.solvers.fusion_instances import fusing
from tests.solvers.instances import instance
from tests.solvers.pair_instances import interacting

Strike = Callable[[int], Deadline]
NEVER = 10**9


@pytest.fixture
def strike(monkeypatch: pytest.MonkeyPatch) -> Strike:
    """A deadline that passes at the n-th look from then on."""
    looks = [0]

    def monotonic() -> float:
        looks[0] += 1
        return float(looks[0])

    monkeypatch.setattr(base, "time", SimpleNamespace(monotonic=monotonic, thread_time=lambda: 0.0))
    return lambda n: Deadline(1e9, looks[0] + n)


def looked(deadline: Deadline) -> int:
    """Looks since `strike(NEVER)`, this one not counted."""
    return NEVER - int(deadline.left) - 1


def two_limits(n: int, k: int, seed: int, share: float = 0.6) -> Problem:
    given = instance("hetero", n, k, seed)
    cost = np.sort(np.random.default_rng([seed, n, k]).integers(1, 10_000, (n, k)), axis=1)
    low, high = int(cost.min(axis=1).sum()), int(cost.max(axis=1).sum())
    limits = (*given.limits, Limit("ms", int(low + share * (high - low))))
    return Problem(given.loss, (*given.resources, Resource("ms", cost)), limits)


def near_dual(given: Problem, states: int) -> tuple[Reduced, Rows, np.ndarray, np.ndarray]:
    reduced = reduce_problem(given)
    rows = Rows.of(reduced)
    m = maximise(reduced, rows, Deadline.after(60.0)).multipliers
    choice = repair(reduced, rows, m, Deadline.after(60.0), states)
    assert choice is not None
    return reduced, rows, m, choice


def test_a_search_by_halves_ends_between_its_lists(strike: Strike) -> None:
    """Regression: lists of 65,536 choices, halved up to thirty times, were made without a look (1.2 of 0.5 s)."""
    with pytest.MonkeyPatch.context() as real:
        real.setattr(base, "time", time)
        reduced, rows, m, choice = near_dual(two_limits(300, 4, 1), 64)
    whole = strike(NEVER)
    best, proof = two_halves.improved(reduced, rows, m, choice, whole)
    looks = looked(whole)
    assert looks > 8
    for n in range(looks + 2):
        found, said = two_halves.improved(reduced, rows, m, choice, strike(n))
        assert all(row.holds(found) for row in reduced.rows)
        assert reduced.objective(best) <= reduced.objective(found) <= reduced.objective(choice)
        assert said is None or said == proof


def test_a_patch_ends_between_its_changes(strike: Strike, monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: up to 50,000 changes were tried between two looks (2.04 s of 1 s)."""
    monkeypatch.setattr(patch, "LOOK", 4)
    reduced = reduce_problem(two_limits(300, 4, 2, share=0.3))
    dearest = np.full(300, 3)
    penalty = reduced.loss - reduced.loss.min(axis=1, keepdims=True)
    whole = strike(NEVER)
    assert patched(reduced, penalty, dearest, whole) is not None
    looks = looked(whole)
    assert looks > 40
    for n in range(looks):
        assert patched(reduced, penalty, dearest, strike(n)) is None


@pytest.mark.parametrize("tries", [1, 7, 60, 400])
def test_a_patch_sorts_only_what_it_looks_at(tries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    reduced = reduce_problem(two_limits(200, 4, 3, share=0.5))
    penalty = np.round(reduced.loss - reduced.loss.min(axis=1, keepdims=True), 4)  # many are equal
    monkeypatch.setattr(patch, "TRIES", tries)
    part = patched(reduced, penalty, np.full(200, 3), Deadline.after(60.0))
    monkeypatch.setattr(patch.np, "partition", lambda rate, kth: np.full(len(rate), np.inf))
    whole = patched(reduced, penalty, np.full(200, 3), Deadline.after(60.0))
    assert (part is None) == (whole is None)
    if part is not None:
        assert (part == whole).all()


def test_a_sweep_over_pairs_that_is_broken_off_gives_a_bound(strike: Strike) -> None:
    """Regression: a sweep over all pairs had no look on its way (0.07 s, 224 units), nor had what came before it."""
    given = interacting(8, 3, 0)
    field = Field.of(reduce_problem(given))
    sets, price, none = _disjoint(field.edges), np.zeros(field.loss.shape), np.zeros(1)
    best = float(solve(given.with_limit("bits", 2**50), "brute", time_limit=60.0).loss or 0)
    exponent = field.reduced.exponent
    for n in (*range(len(sets) + 2), NEVER):
        messages = _sweep(field, price, sets, strike(n))
        assert (messages == 0).all() == (n < 2)
        assert np.ldexp(value_of(field, messages, none), exponent) <= best + 1e-12


def test_menus_and_enumerations_end_between_their_parts(strike: Strike) -> None:
    """Regression: the configurations of all blocks were listed before the first look (6.3 limits of 0.5 s)."""
    given = fusing(3, 4, 0)
    reduced, cover = reduce_problem(given), find_cover(given)
    assert cover is not None
    members, units = next(blocks_of(cover))
    weight = reduced.limits[0].weight
    whole = strike(NEVER)
    assert menu_of(cover, members, units, reduced.loss, weight, whole) is not None
    looks = looked(whole)
    assert looks >= 5
    for n in range(looks):
        assert menu_of(cover, members, units, reduced.loss, weight, strike(n)) is None
    assert fusion(reduced, strike(3), 0).choice is None
    assert brute.BLOCK < 4**8
    with pytest.raises(OutOfResources, match="enumeration"):
        brute.brute(reduce_problem(instance("hetero", 8, 4, 0)), strike(1), 0)


def test_a_refusal_by_enumeration_is_given_without_its_explanation_where_time_is_short(strike: Strike) -> None:
    """Regression: the explanation enumerated all again, for each limit and rule, without a look."""
    given = two_limits(8, 4, 0).with_limit("ms", 21_000).with_limit("bits", 1 << 40)
    reduced = reduce_problem(given)
    low = [int(row.weight.min(axis=1).sum()) for row in reduced.limits]
    tight = tuple(replace(row, bound=least) for row, least in zip(reduced.limits, low, strict=True))
    opposed = replace(tight[0], weight=tight[0].weight[:, ::-1].copy(), name="ms")
    reduced = replace(reduced, limits=(tight[0], opposed))
    count = 4**8 // brute.BLOCK
    found = brute.brute(reduced, strike(count), 0)
    assert found.choice is None
    assert found.blame == "limit bits and limit ms together admit no choice"


def test_a_request_that_is_not_packed_in_time_leaves_the_process_alone() -> None:
    """Regression: a process that had not been asked anything was killed, and arrays were packed past the end."""
    child = Child("tests.solvers.test_child:doubled")
    try:
        first = child.call({"x": np.arange(3)}, time.monotonic() + 60)
        assert first is not None
        assert child.call({"x": np.ones(500_000), "y": np.ones(9)}, time.monotonic()) is None
        again = child.call({"x": np.arange(3)}, time.monotonic() + 60)
        assert again is not None
        assert again["process"] == first["process"]
    finally:
        child.close()


def test_nothing_is_begun_that_does_not_fit_beside_other_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: small tables were read, and programs of pair terms built, whatever time was left."""
    reduced = reduce_problem(two_limits(50, 4, 0))

    def begun(*_: Any) -> Any:
        raise AssertionError("begun")

    monkeypatch.setattr(Rows, "of", begun)
    short = replace(Deadline.after(60.0), load=1e12)
    assert vector.planned(reduced, short).choice is None
    many = reduce_problem(interacting(40, 4, 0))
    assert building(many, 1) > 100 * building(replace(many, pairs=Pairs()), 1)


def test_what_finishing_takes_is_learnt_from_reducing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: only large tables were kept time for, none for pair terms, rules and a loaded machine."""
    clock = [0.0, 0.0]  # the caller's, and the processor's: a third of it

    def slow(problem: Problem) -> Reduced:
        clock[0] += 3.0
        clock[1] += 1.0
        return reduce_problem(problem)

    given: list[Deadline] = []

    def method(reduced: Reduced, deadline: Deadline, seed: int) -> Outcome:
        given.append(deadline)
        return Outcome(None)

    monkeypatch.setattr(base, "time", SimpleNamespace(monotonic=lambda: clock[0], thread_time=lambda: clock[1]))
    monkeypatch.setattr(base, "reduce_problem", slow)
    Solver("greedy", method).solve(instance("hetero", 50, 4, 0), time_limit=100.0)
    assert given[0].load == pytest.approx(3.0, rel=0.02)
    assert given[0].end == pytest.approx(97.0 - base.FINISHING * 3.0, rel=0.01)


@pytest.mark.parametrize(("taken", "expected"), [(4.0, {"vector": 2.5, "milp": 6.0}), (6.0, {"vector": 2.5})])
def test_the_second_solver_of_auto_gets_what_the_first_one_left(
    taken: float, expected: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: it got three quarters of the time even where the first one had taken half."""
    clock, told = [0.0], {}

    def load(name: str) -> SimpleNamespace:
        def late(problem: Problem, time_limit: float, seed: int) -> None:
            told[name] = time_limit
            clock[0] += taken
            raise OutOfResources("time ran out before a plan was found")

        return SimpleNamespace(solve=late)

    monkeypatch.setattr(base, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr("solvers.time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr("solvers.SOLVERS.load", load)
    monkeypatch.setattr("solvers.choose", lambda problem: ("milp", ""))
    with pytest.raises(OutOfResources):
        solve(two_limits(100, 4, 0), time_limit=10.0)
    assert told == pytest.approx(expected)


def test_time_is_kept_for_a_certificate_with_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: 200,000 messages, 0.14 s of a certificate, were no part of the time of a library's search."""
    numbers, left = (0.0,) * 100_000, []
    monkeypatch.setattr("solvers.external.first", lambda *_: Outcome(None, messages=numbers))

    def run(reduced: Reduced, scale: float, deadline: Deadline, seed: int) -> Reply:
        left.append(deadline)
        return Reply("unknown")

    whole = replace(Deadline.after(1000.0), load=10.0)
    outside(reduce_problem(interacting(5, 3, 0)), whole, 0, Backend("none", run))
    assert whole.end - left[0].end > 0.99


def test_messages_are_rounded_as_text_would() -> None:
    rng = np.random.default_rng(0)
    value = rng.normal(size=6_000) * 10.0 ** rng.integers(-30, 14, 6_000)
    value[:5] = 0.0, -0.0, 1.0, 1e-12, 9.9999999999e-5
    found = _rounded(Bound(value.reshape(-1, 2, 3), np.zeros(0), 0.0), 0)
    assert found is not None
    text = np.array([float(f"{v:.{DIGITS}g}") for v in value.tolist()])
    assert np.abs(np.array(found) - text).max(initial=0.0, where=text == 0) == 0
    assert (np.abs(np.array(found) - value) <= 0.51 * 10.0 ** (1 - DIGITS) * np.abs(value)).all()
    assert max(len(repr(v)) for v in found) <= max(len(repr(v)) for v in text.tolist()) + 1


@pytest.mark.parametrize("seed", range(12))
def test_the_best_uniform_plan_among_pair_terms_is_that_of_all_uniform_plans(seed: int) -> None:
    """Regression: every one of them was summed, 15 ms each (524,000 terms), after the time limit."""
    given = interacting(9, 4, seed, strength=6.0)
    given = given.with_limit("bits", given.limits[0].value * (1 + seed % 4))
    plans = [np.full(given.n, j) for j in range(given.k)]
    losses = [total_loss(given, plan) for plan in plans if not violations(given, plan)]
    for least in (None, *losses, min(losses) * 2, min(losses) / 2):
        found = best_uniform(given, least)
        if least is not None and min(losses) >= least:
            assert found is None
        else:
            assert found is not None
            assert total_loss(given, found) == min(losses)


def test_a_proof_that_nothing_fits_is_computed_without_checking_the_problem_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Regression: each look at such a proof checked every array of the problem anew, up to four times its own time."""
    given = two_limits(60, 4, 0)
    loss = given.loss.copy()
    loss[::3, 1] = np.inf
    given = replace(given, loss=loss)
    bare = replace(given, loss=np.where(np.isfinite(given.loss), 0.0, np.inf), pairs=Pairs())

    def again(problem: Problem) -> None:
        raise AssertionError("checked again")

    monkeypatch.setattr(problem_check, "validate", again)
    for m in ({}, {"bits": 1e-9}, {"bits": 1.0, "ms": 2.0}):
        assert lagrangian(given.without_losses(), m) == lagrangian(bare, m)
        assert not impossible(given, m)
    tight = given.with_limit("bits", 1)
    assert impossible(tight, {"bits": 1.0})
    assert not impossible(tight, {})
