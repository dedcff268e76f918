"""`pairs`: exact on small problems, a bound that anyone recomputes, better plans than without pair terms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.core.certificate import lagrangian, total_loss, verify, violations
from bitwright.core.claim import Certificate
from bitwright.core.errors import InvalidPlan, Unsupported, VerificationFailed
from bitwright.core.problem import Pairs, Problem
from solvers import choose, solve
from solvers.base import Deadline
from solvers.pair_dual import _ascend, bound
from solvers.pair_field import Field
from solvers.reduce import reduce_problem
from tests.solvers.pair_instances import interacting
from tests.solvers.test_solver_contract import oracle
from tests.strategies import problems

RICH = problems(units=(2, 5), formats=(1, 3), rules=True, pairs=True, resources=(1, 2), subsets=True)


def test_twelve_units_are_solved_to_the_optimum_of_an_independent_program() -> None:
    given_ = interacting(12, 4, 0)
    mine, other = solve(given_, "pairs", time_limit=60), solve(given_, "ortools", time_limit=60)
    assert mine.certificate.status == other.certificate.status == "optimal"
    assert mine.loss == pytest.approx(other.loss, rel=1e-12)
    assert "branch and bound" in mine.certificate.proof
    assert verify(given_, mine.choice, mine.certificate).ok


def test_pair_terms_change_the_plan_for_the_better() -> None:
    given_ = interacting(224, 8, 1, share=0.1)
    alone = solve(Problem(given_.loss, given_.resources, given_.limits))
    mine = solve(given_, time_limit=60)
    assert mine.solver == "pairs"
    assert mine.loss < total_loss(given_, alone.choice)
    assert mine.certificate.relative_gap < 0.02
    assert verify(given_, mine.choice, mine.certificate).ok


@settings(max_examples=30)
@given(RICH, st.data())
def test_any_messages_give_a_bound(problem: Problem, data: st.DataObject) -> None:
    count = 2 * problem.k * len(Field.of(reduce_problem(problem)).edges)
    messages = tuple(data.draw(st.lists(st.floats(-50, 50), min_size=count, max_size=count)))
    multipliers = {limit.name: data.draw(st.floats(0, 2)) for limit in problem.limits}
    value, scale = lagrangian(problem, multipliers, messages)
    best = oracle(problem)
    assert best is None or value <= best + 1e-9 * max(1.0, scale)


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_ascent_comes_near_the_linear_program(share: float) -> None:
    field = Field.of(reduce_problem(interacting(16, 4, 2, share=share)))
    best, ours = bound(field, Deadline.after(60), 0), _ascend(field, Deadline.after(60))
    assert ours.value <= best.value * (1 + 1e-9)
    nothing = float(field.loss.min(axis=1).sum() + field.floors().sum())
    assert ours.value >= nothing + 0.5 * (best.value - nothing)


def test_messages_are_checked() -> None:
    given_ = interacting(5, 4, 0)
    solution = solve(given_, "pairs", time_limit=60)
    certificate = solution.certificate
    assert Certificate.from_json(certificate.to_json()) == certificate
    for forged in (certificate.messages[:-1], (float("nan"), *certificate.messages[1:])):
        with pytest.raises(VerificationFailed):
            verify(given_, solution.choice, replace(certificate, messages=forged))
    moved = (certificate.messages[0] + 1.0, *certificate.messages[1:])
    assert not verify(given_, solution.choice, replace(certificate, messages=moved)).ok
    for text in ("x", [None], {"a": 1}):
        with pytest.raises(InvalidPlan, match="messages"):
            Certificate.from_json({**certificate.to_json(), "messages": text})


def test_pairs_is_chosen_for_pair_terms_only() -> None:
    given_ = interacting(6, 4, 0)
    assert choose(given_)[0] == "pairs"
    assert choose(Problem(given_.loss, given_.resources, given_.limits))[0] == "hull"


def test_too_many_tables_are_refused() -> None:
    n = 9000
    pairs = Pairs(np.array([[0, 1]]), np.array([[0, 0]]), np.array([1.0]))
    with pytest.raises(Unsupported, match="pair terms"):
        solve(Problem(np.zeros((n, 2)), pairs=pairs), "pairs")


def test_time_runs_out_with_a_plan_and_a_gap() -> None:
    given_ = interacting(40, 4, 0)
    solution = solve(given_, "pairs", time_limit=1.5)
    assert solution.certificate.status == "bounded"
    assert not violations(given_, solution.choice)
    assert verify(given_, solution.choice, solution.certificate).ok
