"""`fusion`: exact covers of bundles, against `milp` and against the same problem without fusions."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from bitwright.core.certificate import impossible, verify
from bitwright.core.errors import InvalidProblem, Unsupported
from bitwright.core.problem import AT_LEAST, Limit, Problem, Rule, compact_bits
from bitwright.core.problem_file import problem_from_arrays, problem_to_arrays
from solvers import choose
from solvers import solve as solve_within
from solvers.covers import find_cover, fusion_problem, used_bundles
from tests.solvers.fusion_instances import fusing

#: Time enough for a child process to start on a machine that does other work too.
solve = partial(solve_within, time_limit=60.0)


@pytest.mark.parametrize(("blocks", "k", "seed"), [(1, 3, 0), (2, 4, 1), (8, 6, 2)])
@pytest.mark.parametrize("memory", [None, 0.45])
def test_equal_to_an_integer_program(blocks: int, k: int, seed: int, memory: float | None) -> None:
    given = fusing(blocks, k, seed, memory=memory)
    mine, other = solve(given, "fusion", time_limit=60), solve(given, "milp", time_limit=60)
    assert mine.certificate.status == other.certificate.status == "optimal"
    assert mine.loss == pytest.approx(other.loss, rel=1e-9)
    assert verify(given, mine.choice, mine.certificate).ok
    assert mine.certificate.relative_gap < 0.15


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.9])
def test_fusing_never_loses_and_wins_where_operations_have_an_overhead(share: float) -> None:
    with_, without = (fusing(8, 5, 3, share=share, **more) for more in ({}, {"fusions": ()}))
    a, b = solve(with_, "fusion"), solve(without, "fusion")
    assert a.loss < b.loss
    free = fusing(8, 5, 3, share=share, overhead=0.0)
    apart = solve(fusing(8, 5, 3, share=share, overhead=0.0, fusions=()), "fusion").loss
    assert solve(free, "fusion").loss <= apart * (1 + 1e-15)  # equal sums, of another order, differ in their last bit


def test_every_member_is_in_exactly_one_bundle_that_is_used() -> None:
    given = fusing(8, 5, 0)
    solution = solve(given)
    assert solution.solver == "fusion"
    cover = find_cover(given)
    used = used_bundles(given, solution.choice)
    assert (cover.holds[:, sorted(used)].sum(axis=1) == 1).all()
    assert any(cover.holds[:, unit].sum() > 1 for unit in used)
    assert find_cover(problem_from_arrays(problem_to_arrays(given))) is not None


def test_the_shape_of_the_largest_in_print_is_proved() -> None:
    """32 blocks of 12 names with 32 quantizers: what Q-Palette gives SCIP a minute for."""
    given = fusing(32, 32, 0)
    solution = solve(given, time_limit=60)
    assert solution.solver == "fusion"
    assert solution.certificate.status == "optimal"
    assert solution.certificate.relative_gap < 1e-4
    assert verify(given, solution.choice, solution.certificate).ok


def test_two_limits_at_a_size_beyond_an_integer_program_in_the_time() -> None:
    given = fusing(10, 8, 4, memory=0.45)
    solution = solve(given, time_limit=60)
    assert solution.info["configurations"] > 100
    assert verify(given, solution.choice, solution.certificate).ok
    assert solution.certificate.relative_gap < 5e-3
    assert min(solution.certificate.multipliers[limit.name] for limit in given.limits) > 0


def test_too_little_time_for_any_cover_is_infeasible_with_a_proof() -> None:
    given = fusing(2, 3, 0).with_limit("latency_us", 100)
    certificate = solve(given, "fusion").certificate
    assert certificate.status == "infeasible"
    assert impossible(given, certificate.multipliers)
    again = given.with_limit("latency_us", certificate.smallest_limit["latency_us"])
    assert solve(again, "fusion").feasible
    assert not solve(again.with_limit("latency_us", again.limits[0].value - 1), "fusion").feasible


def test_other_rules_are_not_taken() -> None:
    given = Problem(np.ones((2, 2)), (compact_bits([1, 1], [1, 2]),), (Limit("bits", 3),),
                    rules=(Rule(np.arange(2), np.array([0]), AT_LEAST, 1),))  # fmt: skip
    assert find_cover(given) is None
    with pytest.raises(Unsupported, match="exact covers"):
        solve(given, "fusion")
    assert choose(given)[0] != "fusion"


@pytest.mark.parametrize(
    ("loss", "bundles", "cost"),
    [
        (np.ones(3), [(0,)], np.ones((1, 3))),
        (np.ones((2, 2)), [(0,)], np.ones((1, 2))),
        (np.ones((1, 2)), [(0,), (1,)], np.ones((2, 2))),
        (np.ones((1, 2)), [()], np.ones((1, 2))),
        (np.ones((1, 2)), [(0,)], np.ones((1, 3))),
    ],
)
def test_what_makes_no_fusion_problem_is_refused(loss: np.ndarray, bundles: list, cost: np.ndarray) -> None:
    with pytest.raises(InvalidProblem):
        fusion_problem(loss, bundles, {"latency_us": cost}, {"latency_us": 1})
