"""`milp`: what HiGHS's own tolerances would hide."""

from __future__ import annotations

import numpy as np
import pytest

from bitwright.core.problem import AT_LEAST, Limit, Problem, Resource, Rule
from solvers import solve
from tests.solvers.pair_instances import interacting

#: A loss of 1e-9 beside ones of 1 is below what HiGHS tells apart from 0.
TINY = np.array([[1.0, 0.0, 0.0], [0.0, 2.0, 1e-9]], np.float32)


def test_a_loss_below_the_tolerance_is_seen_where_nothing_is_limited() -> None:
    free = (Resource("bytes", matrix=np.zeros((2, 3), np.int64)),)
    assert solve(Problem(TINY, free), "milp").loss == 0.0


@pytest.mark.parametrize("tiny", [1e-9, 1e-13, 1e-18])
def test_a_loss_below_the_tolerance_is_seen_beside_limits_and_rules(tiny: float) -> None:
    loss = np.array([[1.0, 0.0, 0.0], [0.0, 2.0, tiny], [3.0, 2.0, 1.0]])
    cost = np.array([[1, 2, 3], [2, 3, 2], [1, 2, 3]])
    rule = Rule(np.array([0, 1, 2]), np.array([0]), AT_LEAST, 1)
    problem = Problem(loss, (Resource("bytes", matrix=cost),), (Limit("bytes", 7),), rules=(rule,))
    solution = solve(problem, "milp")
    assert solution.choice.tolist() == [1, 0, 2]
    assert solution.loss == 1.0


def test_a_plan_without_highs_is_no_proof_where_there_are_pair_terms() -> None:
    """Regression: `vector`'s plan came with a proof that holds without pair terms only: 4 % above another plan."""
    given = interacting(40, 4, 0)
    solution = solve(given, "milp", time_limit=2.0)
    assert solution.certificate.status == "bounded"
