"""Certificates against brute force: bounds bound, verdicts tell the truth, lies are found."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from bitwright.core.certificate import (
    certify,
    infeasible,
    lagrangian,
    smallest_totals,
    total_costs,
    total_loss,
    verify,
    violations,
)
from bitwright.core.claim import Certificate
from bitwright.core.errors import InvalidPlan, VerificationFailed
from bitwright.core.problem import AT_LEAST, Limit, Problem, Resource
from tests.strategies import choices, problems

RICH = problems(units=(1, 5), formats=(1, 3), rules=True, pairs=True, resources=(1, 2), subsets=True)


def all_choices(problem: Problem) -> list[np.ndarray[Any, Any]]:
    return [np.array(c, np.int64) for c in itertools.product(range(problem.k), repeat=problem.n)]


def is_feasible(problem: Problem, choice: np.ndarray[Any, Any]) -> bool:
    """Feasibility in plain Python, from the definition."""
    picks = choice.tolist()
    if any(math.isinf(problem.loss[i, j]) for i, j in enumerate(picks)):
        return False
    if problem.tie is not None:
        for a, b in itertools.combinations(range(problem.n), 2):
            if problem.tie[a] == problem.tie[b] and picks[a] != picks[b]:
                return False
    for limit in problem.limits:
        costs = problem.resource(limit.resource).costs()
        units = range(problem.n) if limit.units is None else limit.units.tolist()
        if sum(int(costs[i, picks[i]]) for i in units) > limit.value:
            return False
    for rule in problem.rules:
        count = sum(picks[i] in rule.formats for i in rule.units.tolist())
        if (count < rule.count) if rule.sense == AT_LEAST else (count > rule.count):
            return False
    return True


def plain_loss(problem: Problem, choice: np.ndarray[Any, Any]) -> float:
    terms = [float(problem.loss[i, j]) for i, j in enumerate(choice.tolist())]
    for (a, b), (f, g), loss in zip(problem.pairs.unit, problem.pairs.format, problem.pairs.loss, strict=True):
        if choice[a] == f and choice[b] == g:
            terms.append(float(loss))
    return math.fsum(terms)


@given(RICH, st.data())
def test_violations_are_exactly_infeasibility(problem: Problem, data: st.DataObject) -> None:
    choice = data.draw(choices(problem))
    assert (violations(problem, choice) == []) is is_feasible(problem, choice)


@given(RICH, st.data())
def test_loss_and_costs_equal_plain_sums(problem: Problem, data: st.DataObject) -> None:
    choice = data.draw(choices(problem))
    expected = plain_loss(problem, choice)
    assert total_loss(problem, choice) == pytest.approx(expected, rel=1e-12, abs=1e-12) or math.isinf(expected)
    for name, total in total_costs(problem, choice).items():
        resource = problem.resource(name.partition("@")[0])
        units = next((m.units for m in problem.limits if m.name == name), None)
        rows = range(problem.n) if units is None else units.tolist()
        assert total == sum(int(resource.costs()[i, choice[i]]) for i in rows)


@given(RICH, st.data())
def test_every_multiplier_gives_a_lower_bound(problem: Problem, data: st.DataObject) -> None:
    names = [m.name for m in problem.limits] + [f"rule:{i}" for i in range(len(problem.rules))]
    multipliers = {name: data.draw(st.floats(0, 20)) for name in names}
    bound, scale = lagrangian(problem, multipliers)
    best = min((plain_loss(problem, c) for c in all_choices(problem) if is_feasible(problem, c)), default=math.inf)
    assert bound <= best + 1e-9 * max(1.0, scale)


# Few drawn choices keep every limit and rule; those that do are checked, however many are drawn for them.
@settings(suppress_health_check=[HealthCheck.filter_too_much])
@given(RICH, st.data())
def test_what_certify_says_verify_confirms(problem: Problem, data: st.DataObject) -> None:
    choice = data.draw(choices(problem))
    assume(is_feasible(problem, choice))
    multipliers = {m.name: data.draw(st.floats(0, 5)) for m in problem.limits}
    certificate = certify(problem, choice, multipliers)
    back = Certificate.from_json(certificate.to_json())
    assert back == certificate
    assert verify(problem, choice, back).ok
    assert certificate.gap is not None
    assert certificate.gap >= 0


@given(problems(units=(2, 5), formats=(2, 4)), st.data())
def test_lies_are_found(problem: Problem, data: st.DataObject) -> None:
    choice = data.draw(choices(problem))
    assume(is_feasible(problem, choice))
    honest = certify(problem, choice, {m.name: 0.25 for m in problem.limits})
    assert honest.loss is not None
    assert honest.lower_bound is not None
    lie = 1.0 + abs(honest.loss) + abs(honest.lower_bound)
    lies = [
        replace(honest, loss=honest.loss - lie),
        replace(honest, lower_bound=honest.lower_bound + lie),
        replace(honest, gap=(honest.gap or 0.0) + lie),
        replace(honest, cost={name: value + 1 for name, value in honest.cost.items()}),
    ]
    if honest.gap:
        lies.append(replace(honest, status="optimal", proof=None))
    assert all(not verify(problem, choice, claimed).ok for claimed in lies)
    assert not verify(problem, np.full(problem.n, problem.k), honest).ok
    assert not verify(problem, choice[:-1], honest).ok


@given(problems(units=(1, 5), formats=(1, 3), subsets=True))
def test_smallest_totals_equal_brute_force(problem: Problem) -> None:
    for name, smallest in smallest_totals(problem).items():
        unlimited = Problem(problem.loss, problem.resources, (), problem.tie)
        totals = [total_costs(problem, c)[name] for c in all_choices(problem) if is_feasible(unlimited, c)]
        assert smallest == min(totals)


@given(problems(units=(1, 5), formats=(1, 3)))
def test_an_infeasibility_claim_is_checked(problem: Problem) -> None:
    possible = any(is_feasible(problem, c) for c in all_choices(problem))
    verdict = verify(problem, np.zeros(0, np.int64), infeasible(problem, "the limit"))
    assert verdict.ok is not possible


def _tiny() -> Problem:
    return Problem(np.array([[1.0, 0.0], [2.0, 0.0]]))


@pytest.mark.parametrize("multipliers", [{"bytes": 1.0}, {"rule:0": 1.0}])
def test_multipliers_of_unknown_limits_are_refused(multipliers: dict[str, float]) -> None:
    with pytest.raises(VerificationFailed):
        lagrangian(_tiny(), multipliers)


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf, "1"])
def test_multipliers_must_be_finite_and_not_negative(value: Any) -> None:
    problem = Problem(np.array([[1.0]]), limits=(), rules=())
    limited = Problem(problem.loss, (_bytes(),), ()).with_limit("bytes", 1)
    with pytest.raises(VerificationFailed):
        lagrangian(limited, {"bytes": value})


def _bytes() -> Any:
    from bitwright.core.problem import Resource

    return Resource("bytes", matrix=np.array([[1]], np.int64))


def test_certify_refuses_an_infeasible_choice() -> None:
    problem = Problem(np.array([[1.0]]), (_bytes(),), ()).with_limit("bytes", 0)
    with pytest.raises(VerificationFailed, match="not feasible"):
        certify(problem, np.array([0]), {})


@pytest.mark.parametrize("data", [{}, {"status": "perfect"}, {"status": []}])
def test_unreadable_certificates_are_refused(data: dict[str, Any]) -> None:
    with pytest.raises(InvalidPlan):
        Certificate.from_json(data)


def test_integer_costs_beyond_float53_are_summed_exactly() -> None:
    from bitwright.core.problem import Resource

    big = 2**53
    resource = Resource("bytes", matrix=np.array([[big], [1], [1]], np.int64))
    problem = Problem(np.zeros((3, 1)), (resource,)).with_limit("bytes", big + 1)
    assert violations(problem, np.zeros(3, np.int64)) == [f"limit bytes is broken: {big + 2} > {big + 1}"]


@pytest.mark.parametrize("multiplier", [1e300, 1.7e308])
def test_a_multiplier_that_overflows_is_refused(multiplier: float) -> None:
    """It once ended in a warning and a bound of nan."""
    problem = Problem(
        np.array([[2.0, 1.0]] * 3),
        (Resource("bytes", matrix=np.array([[10**9, 2 * 10**9]] * 3)),),
        (Limit("bytes", 5 * 10**9),),
    )
    choice = np.array([0, 0, 1])
    claimed = replace(certify(problem, choice, {"bytes": 0.0}), multipliers={"bytes": multiplier})
    with pytest.raises(VerificationFailed, match="too large"):
        verify(problem, choice, claimed)


@pytest.mark.parametrize(("limit", "holds"), [(2**54 + 1, True), (2**54 + 3, True), (2**54, False)])
def test_whole_totals_beyond_the_mantissa_are_compared_exactly(limit: int, holds: bool) -> None:
    """Regression: as float 2^54 + 1 is 2^54 (a plan at its limit was refused), 2^54 + 3 is 2^54 + 4 (one too many)."""
    cost = np.array([[2**54 + 1, 2**54 + 4]])
    problem = Problem(np.array([[2.0, 1.0]]), (Resource("bytes", matrix=cost),), (Limit("bytes", limit),))
    assert (violations(problem, np.array([0])) == []) is holds
    assert violations(problem, np.array([1]))
