"""Several limits that truly bind, rules, and what `auto` does with them by size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given as all_of
from hypothesis import reject

from bitwright.core.certificate import verify
from bitwright.core.errors import OutOfResources
from bitwright.core.problem import AT_LEAST, AT_MOST, Limit, Problem, Resource, Rule, compact_bits
from solvers import choose, solve
from tests.solvers.instances import instance
from tests.strategies import problems


def both_bind(family: str, n: int, k: int, seed: int) -> Problem:
    """Limits are what the plan of a known pair of multipliers uses, less a little."""
    one = instance(family, n, k, seed)
    rng = np.random.default_rng([seed, 7])
    bits = one.resources[0].costs()
    share = bits / bits.mean()
    latency = np.rint(1000 * (0.3 + share * rng.uniform(0.3, 2.5, (n, 1)) * rng.uniform(0.8, 1.2, (n, k)))).astype(
        np.int64
    )
    rate = 0.02 * one.loss.sum()
    choice = (one.loss + rate * bits / bits.sum() + rate * latency / latency.sum()).argmin(axis=1)
    rows = np.arange(n)
    resources = (Resource("bits", matrix=bits), Resource("latency_us", matrix=latency))
    limits = (
        Limit("bits", int(bits[rows, choice].sum()) - 7),
        Limit("latency_us", int(latency[rows, choice].sum()) - 11),
    )
    return Problem(one.loss, resources, limits)


@pytest.mark.parametrize("family", ["layers", "hetero"])
def test_vector_is_close_to_the_proved_optimum(family: str) -> None:
    given = both_bind(family, 150, 4, 1)
    best, ours = solve(given, "milp", time_limit=60), solve(given, "vector")
    assert best.certificate.status == "optimal"
    assert min(best.certificate.multipliers.values()) > 0
    assert min(ours.certificate.multipliers.values()) > 0
    assert ours.loss <= best.loss * (1 + 2e-3)
    assert ours.certificate.lower_bound <= best.loss
    assert ours.certificate.lower_bound == pytest.approx(best.certificate.lower_bound, rel=1e-3)


def test_auto_asks_who_often_proves_before_who_is_slow() -> None:
    given = both_bind("layers", 100, 4, 1)
    soon, slow = solve(given), solve(given, "milp", time_limit=60)
    assert soon.solver == "vector"
    assert "vector was asked before it" in soon.info["auto"]["why"]
    assert soon.certificate.status == slow.certificate.status == "optimal"
    assert soon.loss == pytest.approx(slow.loss, rel=1e-12)


def test_auto_blames_as_the_exact_solver_does_where_nothing_fits() -> None:
    given = both_bind("layers", 100, 4, 1)
    cheapest = int(given.resource("bits").costs().min(axis=1).sum())
    auto, milp = (solve(given.with_limit("bits", cheapest - 1), name, time_limit=60) for name in ("auto", "milp"))
    assert not auto.feasible
    assert auto.solver == "milp"
    assert auto.certificate.smallest_limit == milp.certificate.smallest_limit


@pytest.mark.parametrize("family", ["layers", "hetero"])
def test_many_units_end_with_a_tiny_gap(family: str) -> None:
    given = both_bind(family, 20_000, 8, 1)
    solution = solve(given)
    assert solution.solver == "vector"
    assert verify(given, solution.choice, solution.certificate).ok
    assert min(solution.certificate.multipliers.values()) > 0
    assert solution.certificate.relative_gap <= 2e-6
    assert solution.info["passes"] <= 20


@pytest.mark.parametrize("family", ["experts", "layers", "hetero"])
@pytest.mark.parametrize("seed", [0, 1])
def test_what_is_left_of_the_gap_is_searched_to_its_end(family: str, seed: int) -> None:
    given = both_bind(family, 60, 4, seed)
    best, ours = solve(given, "milp", time_limit=60), solve(given, "vector")
    assert best.certificate.status == ours.certificate.status == "optimal"
    assert "complete search" in str(ours.certificate.proof)
    assert ours.loss == pytest.approx(best.loss, rel=1e-12)


def test_the_limit_may_lie_between_two_steps() -> None:
    """Regression: `experts` ended with a gap of 1.0e-6, nearly all of it between two steps of 44 million."""
    solution = solve(both_bind("experts", 45_000, 8, 0), "vector", time_limit=60)
    assert solution.certificate.status == "optimal"


@all_of(problem=problems(units=(1, 7), rules=True, subsets=True, resources=(1, 3)))
def test_plans_said_to_be_optimal_are(problem: Problem) -> None:
    best = solve(problem, "brute")
    try:
        ours = solve(problem, "vector")
    except OutOfResources:  # its repair finds no plan: allowed, and no claim
        reject()
    assert ours.feasible == best.feasible
    if best.feasible and ours.certificate.status == "optimal":
        assert ours.loss == pytest.approx(best.loss, rel=1e-11, abs=1e-13)


def test_one_limit_does_not_bind() -> None:
    given = both_bind("hetero", 500, 4, 2).with_limit("latency_us", 10**12)
    solution = solve(given, "vector")
    assert solution.certificate.multipliers["latency_us"] == 0.0
    assert solution.certificate.relative_gap < 2e-3


def test_rules_with_a_bound() -> None:
    """'At least one unit of each block high, at most two low' (the rule of MC-MoE), at a size for `vector`."""
    one = instance("experts", 4096, 8, 0)
    blocks = np.arange(4096).reshape(-1, 64)
    rules = tuple(Rule(b, np.array([6, 7]), AT_LEAST, 3) for b in blocks[:10])
    rules += tuple(Rule(b, np.array([0]), AT_MOST, 2) for b in blocks[:10])
    given = Problem(one.loss, one.resources, one.limits, rules=rules)
    assert choose(given)[0] == "vector"
    solution = solve(given, time_limit=60)
    assert verify(given, solution.choice, solution.certificate).ok
    assert solution.certificate.relative_gap < 2e-3


def test_the_rule_of_a_mixture_in_every_layer_at_the_size_of_its_largest_models() -> None:
    """'One 3-bit and one 2-bit expert a layer' (MC-MoE), 58 layers of 128 experts, a quarter of little weight."""
    layers, experts = 58, 128
    rng = np.random.default_rng(0)
    scale = np.exp(rng.normal(0, 1.2, (layers, experts)))
    scale[::4] *= 1e-3
    loss = (scale.reshape(-1, 1) * [1.0, 0.3, 0.08] * np.exp(0.1 * rng.normal(size=(layers * experts, 3)))).astype(
        float
    )
    blocks = np.arange(layers * experts).reshape(layers, -1)
    rules = tuple(Rule(b, np.array([j]), AT_LEAST, 8) for b in blocks for j in (1, 2))
    bits = compact_bits(np.ones(len(loss), int), [1, 2, 3])
    given = Problem(loss, (bits,), (Limit("bits", 2 * len(loss)),), rules=rules)
    assert choose(given)[0] == "vector"
    solution = solve(given, time_limit=60)
    assert verify(given, solution.choice, solution.certificate).ok
    assert solution.certificate.relative_gap < 2e-3


def test_auto_prefers_the_prover_while_it_is_quick() -> None:
    assert choose(both_bind("hetero", 224, 8, 0))[0] == "milp"
    name, why = choose(both_bind("hetero", 5_000, 8, 0))
    assert name == "vector"
    assert "slow" in why


def test_rounding_beside_zero_variances_leaves_no_singular_matrix() -> None:
    """Both units' choices are certain in the smoothed problem: its Hessian held nothing but what rounding left."""
    problem = Problem(
        loss=np.array([[0.0, 0.0], [0.0, 0.125]]),
        resources=(
            Resource("bits", size=np.array([39, 43]), rate=np.array([16, 16])),
            Resource("latency_us", matrix=np.array([[0, 1], [143, 0]])),
        ),
        limits=(Limit("bits", 1312), Limit("latency_us", 10)),
        rules=(Rule(np.array([0, 1]), np.array([0, 1]), 1, 2),),
    )
    assert solve(problem, "vector").loss == solve(problem, "brute").loss
