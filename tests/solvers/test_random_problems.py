"""Two thousand random small problems with random features agree with an enumeration; the long form has a command."""

from __future__ import annotations

import numpy as np
import pytest

from tests.solvers.random_problems import disagreement, random_problem


@pytest.mark.parametrize("part", range(4))
def test_two_thousand_random_problems_agree_with_enumeration(part: int) -> None:
    for index in range(part, 2000, 4):
        problem = random_problem(np.random.default_rng([2026, index]))
        assert disagreement(problem) is None, index


@pytest.mark.parametrize("solver", ["brute", "milp", "pairs", "ortools", "ortools-mathopt"])
def test_provers_that_take_every_feature_agree_too(solver: str) -> None:
    for index in range(40):
        problem = random_problem(np.random.default_rng([7, index]))
        assert disagreement(problem, solver) is None, index
