"""The curvature of dense pair terms: a bound of every plan whatever its numbers, and refused where it is none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwright.core.bound import lagrangian
from bitwright.core.certificate import total_loss, verify, violations
from bitwright.core.claim import Certificate
from bitwright.core.errors import VerificationFailed
from bitwright.core.problem import Problem
from solvers import solve
from solvers.base import Deadline, Solver
from solvers.pair_convex import convex_bound
from solvers.pair_field import Field
from solvers.pairs import first
from solvers.reduce import reduce_problem
from tests.solvers.pair_instances import interacting
from tests.strategies import problems


def curvature(problem: Problem) -> tuple[float, ...] | None:
    found = convex_bound(Field.of(reduce_problem(problem)), Deadline.after(60))
    return None if found is None else found.curvature


@given(problem=problems(pairs=True, rules=True, resources=(1, 2)), data=st.data())
def test_it_bounds_every_plan_at_any_multipliers_and_point(problem: Problem, data: st.DataObject) -> None:
    found = curvature(problem)
    if found is None:
        return
    point = problem.groups * problem.k
    moved = list(found)
    moved[-point:] = data.draw(st.lists(st.floats(-2, 2), min_size=point, max_size=point))
    multipliers = {limit.name: data.draw(st.floats(0, 3)) for limit in problem.limits}
    for numbers in (found, tuple(moved)):
        bound, scale = lagrangian(problem, multipliers, curvature=numbers)
        for _ in range(20):
            picks = data.draw(st.lists(st.integers(0, problem.k - 1), min_size=problem.groups, max_size=problem.groups))
            choice = np.array(picks, np.int64)[problem.group_index]
            if not violations(problem, choice):
                assert bound <= total_loss(problem, choice) + 1e-9 * max(1.0, scale)


def test_dense_pair_terms_have_a_bound_of_use() -> None:
    """Regression: messages alone gave a gap of 150 %."""
    given = interacting(112, 4, 0)
    solution = Solver("pairs", first).solve(given, time_limit=60)  # without the complete search, which has no end here
    assert solution.certificate.relative_gap is not None
    assert solution.certificate.relative_gap < 0.04
    assert solution.certificate.curvature is not None
    back = Certificate.from_json(solution.certificate.to_json())
    assert back == solution.certificate
    assert verify(given, solution.choice, back).ok


def test_a_curvature_that_proves_nothing_is_refused() -> None:
    given = interacting(12, 4, 0)
    found = curvature(given)
    assert found is not None
    solution = solve(given, "pairs")
    less = (*(0.5 * value for value in found[: 12 * 16]), *found[12 * 16 :])
    for numbers, word in ((less, "negative eigenvalue"), (found[1:], "does not fit"), ((np.inf, *found[1:]), "finite")):
        forged = replace(solution.certificate, messages=None, curvature=numbers)
        with pytest.raises(VerificationFailed, match=word):
            verify(given, solution.choice, forged)
