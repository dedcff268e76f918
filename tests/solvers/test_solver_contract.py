"""One contract for every solver of the catalog: right against an enumeration written here, and honest about it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bitwright.core.certificate import total_loss, verify, violations
from bitwright.core.errors import OutOfResources, Unsupported
from bitwright.core.problem import Pairs, Problem
from bitwright.core.solution import Solution, uniform_choices
from solvers import solve as solve_within
from solvers.capabilities import BUDGET, COST_UNIT, LOSS_UNIT, ORDER, capabilities, features
from solvers.catalog import SOLVERS
from tests.solvers.fusion_instances import fusing
from tests.solvers.instances import instance
from tests.solvers.transforms import cost_scaled, declared, loosened, loss_scaled, permuted
from tests.strategies import problems

#: Time enough for a child process to start on a machine that does other work too.
solve = partial(solve_within, time_limit=60.0)

NAMES = [entry.name for entry in SOLVERS]
EXACT = [entry.name for entry in SOLVERS if capabilities(entry).exact]
PLAIN = [entry.name for entry in SOLVERS if not capabilities(entry).only_covers]
#: Solvers that hand the work to a program of others: a call costs ten times as much, so they get fewer examples.
FOREIGN = {entry.name for entry in SOLVERS if {"pulp", "ortools", "cvxpy"} & set(entry.needs)}
CLOSE = 1e-9


def hold(name: str, claim: Callable[[st.DataObject], None]) -> None:
    """The claim holds for whatever Hypothesis draws."""
    profile = settings.get_profile(settings.get_current_profile_name())
    settings(max_examples=profile.max_examples // (4 if name in FOREIGN else 1))(given(st.data())(claim))()


def oracle(problem: Problem) -> float | None:
    """Least loss over every choice, by the checker's own rules; None when there is none."""
    best = None
    for picks in itertools.product(range(problem.k), repeat=problem.groups):
        choice = np.array(picks, np.int64)[problem.group_index]
        if not violations(problem, choice):
            loss = total_loss(problem, choice)
            best = loss if best is None else min(best, loss)
    return best


def close(a: float, b: float, problem: Problem) -> bool:
    finite = np.abs(problem.loss[np.isfinite(problem.loss)])
    scale = float(finite.max(initial=0.0)) + float(np.abs(problem.pairs.loss).max(initial=0.0))
    return abs(a - b) <= CLOSE * max(abs(a), abs(b)) + 1e-12 * scale


def check(problem: Problem, solution: Solution) -> None:
    """What holds for every answer of every solver."""
    verdict = verify(problem, solution.choice, solution.certificate)
    assert verdict.ok, verdict.failures
    if not solution.feasible:
        assert solution.loss is None
        assert solution.certificate.blame
        return
    assert solution.certificate.loss == solution.loss
    for _, uniform in uniform_choices(problem):
        if not violations(problem, uniform):
            assert solution.loss <= total_loss(problem, uniform)


@pytest.mark.parametrize("name", NAMES)
def test_agrees_with_enumeration(name: str) -> None:
    def claim(data: st.DataObject) -> None:
        problem = data.draw(declared(name))
        best = oracle(problem)
        try:
            solution = solve(problem, name)
        except OutOfResources:  # a heuristic may find no plan, but must not call that infeasible
            assert name not in EXACT
            return
        check(problem, solution)
        assert solution.feasible == (best is not None)
        if best is None:
            return
        assert solution.loss >= best - 1e-12 * max(1.0, abs(best))
        if name in EXACT:
            assert solution.certificate.status == "optimal"
        if solution.certificate.status == "optimal":
            assert close(solution.loss, best, problem)

    hold(name, claim)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_twice(name: str) -> None:
    def claim(data: st.DataObject) -> None:
        problem = data.draw(declared(name))
        try:
            first, second = solve(problem, name, seed=3), solve(problem, name, seed=3)
        except OutOfResources:
            assert name not in EXACT
            return
        assert first.to_json() == second.to_json()

    hold(name, claim)


def keeping(change: str) -> list[str]:
    """Solvers that declare that their loss stays the same under a change."""
    return [entry.name for entry in SOLVERS if capabilities(entry).keeps(change)]


def both(name: str, one: Problem, other: Problem) -> tuple[Solution, Solution]:
    """The solutions of a problem and of the same said otherwise; a heuristic may find no plan, if for both."""
    found = []
    for problem in (one, other):
        try:
            found.append(solve(problem, name))
        except OutOfResources:
            assert name not in EXACT
    assume(len(found) > 0)
    assert len(found) == 2
    a, b = found
    return a, b


@pytest.mark.parametrize("name", keeping(ORDER))
def test_order_of_units_and_formats_does_not_matter(name: str) -> None:
    def claim(data: st.DataObject) -> None:
        problem = data.draw(declared(name))
        units, formats = (np.array(data.draw(st.permutations(range(n)))) for n in (problem.n, problem.k))
        a, b = both(name, problem, permuted(problem, units, formats))
        assert a.feasible == b.feasible
        if a.feasible:
            assert close(a.loss, b.loss, problem)

    hold(name, claim)


@pytest.mark.parametrize("name", keeping(LOSS_UNIT))
def test_unit_of_loss_does_not_matter(name: str) -> None:
    def claim(data: st.DataObject) -> None:
        problem, power = data.draw(declared(name)), data.draw(st.sampled_from([-40, -17, 1, 23, 40]))
        a, b = both(name, problem, loss_scaled(problem, power))
        assert a.certificate.status == b.certificate.status
        if a.feasible:
            assert np.array_equal(a.choice, b.choice)
            assert b.loss == np.ldexp(a.loss, power)

    hold(name, claim)


@pytest.mark.parametrize("name", keeping(COST_UNIT))
def test_unit_of_cost_does_not_matter(name: str) -> None:
    def claim(data: st.DataObject) -> None:
        problem, power = data.draw(declared(name)), data.draw(st.sampled_from([-40, -3, 20, 40]))
        a, b = both(name, problem, cost_scaled(problem, power))
        assert a.feasible == b.feasible
        if a.feasible:
            if name in EXACT:
                assert a.certificate.status == b.certificate.status == "optimal"
            assert close(a.loss, b.loss, problem)

    hold(name, claim)


@pytest.mark.parametrize("name", keeping(BUDGET))
def test_a_larger_budget_is_never_worse(name: str) -> None:
    def claim(data: st.DataObject) -> None:
        problem, more = data.draw(declared(name)), data.draw(st.integers(0, 60))
        assume(problem.limits)
        a, b = both(name, problem, loosened(problem, more))
        if a.feasible:
            assert b.feasible
            assert b.loss <= a.loss or close(a.loss, b.loss, problem)

    hold(name, claim)


@pytest.mark.parametrize("name", PLAIN)
def test_without_limit_every_unit_takes_its_best(name: str) -> None:
    def claim(data: st.DataObject) -> None:
        problem = data.draw(problems(units=(1, 5), formats=(1, 3), limited=False, ties=False))
        solution = solve(problem, name)
        check(problem, solution)
        assert solution.certificate.status == "optimal"
        assert close(solution.loss, float(problem.loss.astype(np.float64).min(axis=1).sum()), problem)

    hold(name, claim)


@pytest.mark.parametrize("name", PLAIN)
def test_the_clock_is_kept_and_what_was_found_is_verified(name: str) -> None:
    """Figures of how closely it is kept: `python -m benchmarks.time_limits`."""
    problem = instance("correlated", 300, 8, 0)
    if capabilities(SOLVERS.get(name)).missing(features(problem)):
        problem = instance("layers", 12, 4, 0)
    begin = time.monotonic()
    try:
        solution = solve(problem, name, time_limit=0.5)
    except (OutOfResources, Unsupported):
        return
    assert time.monotonic() - begin < 30  # generous: shared machines pause
    check(problem, solution)


@pytest.mark.parametrize("name", [e.name for e in SOLVERS if capabilities(e).rules and capabilities(e).limits > 1])
def test_the_clock_is_kept_with_hundreds_of_rules(name: str) -> None:
    """Figures of how closely: `python -m benchmarks.time_limits` (1.04 at most of 2 s)."""
    problem = fusing(16, 16, 0, memory=0.45)
    if capabilities(SOLVERS.get(name)).missing(features(problem)):
        return
    begin = time.monotonic()
    try:
        solution = solve_within(problem, name, time_limit=0.5)
    except OutOfResources:
        assert time.monotonic() - begin < 15  # generous: shared machines pause
        return
    assert time.monotonic() - begin < 15
    check(problem, solution)


@given(data=st.data())
def test_auto_takes_everything_and_says_why(data: st.DataObject) -> None:
    problem = data.draw(problems(units=(1, 5), formats=(1, 3), rules=True, pairs=True, resources=(1, 3), subsets=True))
    solution = solve(problem)
    check(problem, solution)
    assert solution.info["auto"]["solver"] == solution.solver
    assert solution.info["auto"]["why"]
    best = oracle(problem)
    assert solution.feasible == (best is not None)
    if best is not None:
        assert solution.certificate.status == "optimal"
        assert close(solution.loss, best, problem)


@pytest.mark.parametrize("name", [n for n in NAMES if capabilities(SOLVERS.get(n)).pairs])
def test_pairs_inside_a_tie_group(name: str) -> None:
    """A pair between two tied units is a cell of their group, or never happens."""
    pairs = Pairs(np.array([[0, 1], [0, 1]]), np.array([[1, 1], [0, 1]]), np.array([5.0, -9.0]))
    problem = Problem(np.array([[1.0, 0.5], [1.0, 0.5]]), tie=np.array([7, 7]), pairs=pairs)
    solution = solve(problem, name)
    assert solution.choice.tolist() == [0, 0]
    assert solution.loss == 2.0


def test_exact_solvers_say_that_nothing_moves_them() -> None:
    """What `keeping` reads: a solver that declares too little would be held to too little."""
    for name in EXACT:
        assert set(capabilities(SOLVERS.get(name)).steady) == {ORDER, LOSS_UNIT, COST_UNIT, BUDGET}
