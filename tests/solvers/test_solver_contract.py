"""One contract for every solver of the catalog: right against an enumeration written here, and honest about it."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bitwright.core.certificate import total_loss, verify, violations
from bitwright.core.errors import OutOfResources
from bitwright.core.problem import Limit, Pairs, Problem, Resource
from bitwright.core.solution import Solution, uniform_choices
from solvers import solve
from solvers.capabilities import capabilities
from solvers.catalog import SOLVERS
from tests.strategies import problems

NAMES = [entry.name for entry in SOLVERS]
EXACT = [entry.name for entry in SOLVERS if capabilities(entry).exact]
CLOSE = 1e-9


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


def declared(name: str, **limits: object) -> st.SearchStrategy[Problem]:
    """Problems with every feature that the solver declares."""
    able = capabilities(SOLVERS.get(name))
    many = able.limits > 1
    return problems(
        units=(1, 5), formats=(1, 3), rules=able.rules, pairs=able.pairs, resources=(1, 2) if many else (1, 1),
        subsets=many, **limits,
    )  # fmt: skip


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
@given(data=st.data())
def test_agrees_with_enumeration(name: str, data: st.DataObject) -> None:
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
        assert close(solution.loss, best, problem)


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_the_same_twice(name: str, data: st.DataObject) -> None:
    problem = data.draw(problems(units=(1, 5), formats=(1, 3)))
    first, second = solve(problem, name, seed=3), solve(problem, name, seed=3)
    assert first.to_json() == second.to_json()


@pytest.mark.parametrize("name", EXACT)
@given(data=st.data())
def test_order_of_units_and_formats_does_not_matter(name: str, data: st.DataObject) -> None:
    problem = data.draw(problems(units=(1, 5), formats=(1, 3)))
    units = np.array(data.draw(st.permutations(range(problem.n))))
    formats = np.array(data.draw(st.permutations(range(problem.k))))
    resource = problem.resources[0]
    shuffled = Problem(
        problem.loss[units][:, formats],
        (Resource(resource.name, matrix=resource.costs()[units][:, formats]),),
        problem.limits,
        None if problem.tie is None else problem.tie[units],
    )
    a, b = solve(problem, name), solve(shuffled, name)
    assert a.feasible == b.feasible
    if a.feasible:
        assert close(a.loss, b.loss, problem)


@pytest.mark.parametrize("name", EXACT)
@given(data=st.data(), power=st.sampled_from([-40, -17, 1, 23, 40]))
def test_unit_of_loss_does_not_matter(name: str, data: st.DataObject, power: int) -> None:
    problem = data.draw(declared(name))
    pairs = replace(problem.pairs, loss=np.ldexp(problem.pairs.loss, power))
    scaled = Problem(
        np.ldexp(problem.loss.astype(np.float64), power),
        problem.resources,
        problem.limits,
        problem.tie,
        problem.rules,
        pairs,
    )
    a, b = solve(problem, name), solve(scaled, name)
    assert a.certificate.status == b.certificate.status
    if a.feasible:
        assert np.array_equal(a.choice, b.choice)
        assert b.loss == np.ldexp(a.loss, power)


@pytest.mark.parametrize("name", EXACT)
@given(data=st.data(), power=st.sampled_from([-40, -3, 20, 40]))
def test_unit_of_cost_does_not_matter(name: str, data: st.DataObject, power: int) -> None:
    problem = data.draw(problems(units=(1, 5), formats=(1, 3)))
    costs, limit = problem.resources[0].costs(), problem.limits[0]
    if power > 0:
        scaled_costs, value = costs << power, int(limit.value) << power
    else:
        scaled_costs, value = np.ldexp(costs.astype(np.float64), power), np.ldexp(float(limit.value), power).item()
    resource = Resource(limit.resource, matrix=scaled_costs)
    scaled = Problem(problem.loss, (resource,), (Limit(limit.resource, value),), problem.tie)
    a, b = solve(problem, name), solve(scaled, name)
    assert a.feasible == b.feasible
    if a.feasible:
        assert a.certificate.status == b.certificate.status == "optimal"
        assert close(a.loss, b.loss, problem)


@pytest.mark.parametrize("name", EXACT)
@given(data=st.data(), more=st.integers(0, 60))
def test_a_larger_budget_is_never_worse(name: str, data: st.DataObject, more: int) -> None:
    problem = data.draw(declared(name))
    assume(problem.limits)
    limit = problem.limits[0]
    a, b = solve(problem, name), solve(problem.with_limit(limit.name, limit.value + more), name)
    if a.feasible:
        assert b.feasible
        assert b.loss <= a.loss or close(a.loss, b.loss, problem)


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_without_limit_every_unit_takes_its_best(name: str, data: st.DataObject) -> None:
    problem = data.draw(problems(units=(1, 5), formats=(1, 3), limited=False, ties=False))
    solution = solve(problem, name)
    check(problem, solution)
    assert solution.certificate.status == "optimal"
    assert close(solution.loss, float(problem.loss.astype(np.float64).min(axis=1).sum()), problem)


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


@pytest.mark.parametrize("name", NAMES)
def test_pairs_inside_a_tie_group(name: str) -> None:
    """A pair between two tied units is a cell of their group, or never happens."""
    if not capabilities(SOLVERS.get(name)).pairs:
        pytest.skip(f"{name} takes no pair terms")
    pairs = Pairs(np.array([[0, 1], [0, 1]]), np.array([[1, 1], [0, 1]]), np.array([5.0, -9.0]))
    problem = Problem(np.array([[1.0, 0.5], [1.0, 0.5]]), tie=np.array([7, 7]), pairs=pairs)
    solution = solve(problem, name)
    assert solution.choice.tolist() == [0, 0]
    assert solution.loss == 2.0
