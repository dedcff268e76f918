"""`dp`: the same optimum as `hull` where enumeration is out of reach, and a typed refusal of fine costs."""

from __future__ import annotations

import numpy as np
import pytest

from bitwright.core.certificate import verify
from bitwright.core.errors import OutOfResources, Unsupported
from bitwright.core.problem import Limit, Problem, Resource, compact_bits
from solvers import solve
from solvers.base import Deadline
from solvers.dp import SOLVER, dp
from solvers.reduce import reduce_problem
from tests.solvers.instances import instance


@pytest.mark.parametrize("seed", range(3))
def test_the_same_optimum_as_hull_on_the_layers_of_a_large_model(seed: int) -> None:
    problem = instance("layers", 224, 4, seed)
    table, hull = solve(problem, "dp"), solve(problem, "hull")
    assert table.certificate.status == hull.certificate.status == "optimal"
    assert table.loss == pytest.approx(hull.loss, rel=1e-12)
    assert table.info["gcd"] % (16 * 4096 * 1024) == 0  # steps of one bit, sizes in multiples of the smallest layer
    assert verify(problem, table.choice, table.certificate).ok


def test_its_certificate_states_the_linear_bound() -> None:
    problem = instance("experts", 60, 4, 1)
    table, hull = solve(problem, "dp"), solve(problem, "hull")
    assert table.certificate.lower_bound == pytest.approx(hull.certificate.lower_bound, rel=1e-12)


def test_a_limit_beyond_the_dearest_formats_costs_no_columns() -> None:
    problem = Problem(np.array([[4.0, 1.0]] * 3), (compact_bits([10] * 3, [2, 4]),), (Limit("bits", 10**15),))
    solution = solve(problem, "dp")
    assert solution.choice.tolist() == [1, 1, 1]
    assert solution.info["columns"] == 4


def test_fine_costs_are_refused_with_the_size_of_the_table() -> None:
    costs = np.array([[1.0, np.pi], [1.0, np.e]])
    problem = Problem(np.array([[4.0, 1.0]] * 2), (Resource("us", matrix=costs),), (Limit("us", 5.5),))
    with pytest.raises(Unsupported, match="too fine") as caught:
        solve(problem, "dp")
    assert "hull" in caught.value.hint


def test_time_that_ran_out_is_said() -> None:
    reduced = reduce_problem(instance("layers", 8, 4, 0))
    with pytest.raises(OutOfResources, match="time ran out"):
        dp(reduced, Deadline(1.0, 0.0), 0)
    assert SOLVER.name == "dp"
