"""Infeasible problems: what is to blame, how far each limit must move, and a proof that the checker recomputes."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from bitwright.core.certificate import impossible, verify
from bitwright.core.errors import Infeasible
from bitwright.core.problem import AT_LEAST, AT_MOST, Limit, Problem, Resource, Rule, compact_bits
from solvers import solve as solve_within
from solvers.catalog import SOLVERS
from tests.solvers.instances import instance
from tests.solvers.random_problems import disagreement, random_problem

#: Time enough for a child process to start on a machine that does other work too.
solve = partial(solve_within, time_limit=60.0)

LOSS = np.array([[4.0, 2.0, 1.0]] * 4)
BITS = compact_bits([10] * 4, [2, 3, 4])
ALL = np.arange(4)
PROVERS = ["milp", "brute", "pairs", "ortools", "ortools-mathopt"]


def mixture(bits: int) -> Problem:
    """The rule of MC-MoE: at least one unit at 4 bits and one at 3, so the least is 10 (2 + 2 + 3 + 4) = 110."""
    rules = tuple(Rule(ALL, np.array([j]), AT_LEAST, 1) for j in (1, 2))
    return Problem(LOSS, (BITS,), (Limit("bits", bits),), rules=rules)


@pytest.mark.parametrize("name", PROVERS)
def test_a_limit_that_rules_raise_names_the_least_it_can_be(name: str) -> None:
    refused = solve(mixture(109), name)
    certificate = refused.certificate
    assert certificate.smallest_limit == {"bits": 110}
    assert "limit bits" in certificate.blame
    assert "rule 0" in certificate.blame
    assert "the least is bits = 110" in certificate.blame
    assert verify(mixture(109), refused.choice, certificate).ok
    with pytest.raises(Infeasible) as caught:
        refused.require()
    assert "110" in caught.value.expected
    assert solve(mixture(110), name).certificate.status == "optimal"


@pytest.mark.parametrize("name", PROVERS)
def test_two_limits_name_what_each_needs_while_the_other_stands(name: str) -> None:
    late = Resource("latency_us", matrix=np.array([[9, 5, 1]] * 4))
    both = Problem(LOSS, (BITS, late), (Limit("bits", 90), Limit("latency_us", 20)))
    certificate = solve(both, name).certificate
    # 90 bits buy 10 more than the cheapest: one step up, 36 - 4; 20 us need four steps, so 120 bits.
    assert certificate.smallest_limit == {"bits": 120, "latency_us": 32}
    assert "limit bits and limit latency_us" in certificate.blame


def test_multipliers_prove_what_the_relaxation_already_excludes() -> None:
    refused = solve(mixture(100), "milp")
    certificate = refused.certificate
    assert impossible(mixture(100), certificate.multipliers)
    verdict = verify(mixture(100), refused.choice, certificate)
    assert any("multipliers prove" in note for note in verdict.notes)
    assert not impossible(mixture(110), certificate.multipliers)


def test_what_only_whole_choices_exclude_is_said_to_be_taken_on_trust() -> None:
    loss, bits = np.array([[1.0, 0.0]] * 3), compact_bits([10] * 3, [2, 4])
    odd = Problem(loss, (bits,), (Limit("bits", 70),), rules=(Rule(np.arange(3), np.array([1]), AT_LEAST, 1),))
    tight = odd.with_limit("bits", 75)
    assert solve(tight, "milp").certificate.status == "infeasible"
    verdict = verify(tight, np.zeros(0, np.int64), solve(tight, "milp").certificate)
    assert verdict.ok
    assert any("trust" in note for note in verdict.notes)


def test_forged_refusals_are_found() -> None:
    honest = solve(mixture(100), "milp").certificate
    nothing = np.zeros(0, np.int64)
    lower = replace(honest, smallest_limit={"bits": 70})
    assert not verify(mixture(100), nothing, lower).ok
    one = Problem(LOSS, (BITS,), (Limit("bits", 79),))
    raised = replace(solve(one, "hull").certificate, smallest_limit={"bits": 100})
    assert not verify(one, nothing, raised).ok
    feasible = Problem(LOSS, (BITS,), (Limit("bits", 90),))
    claimed = replace(solve(one, "hull").certificate, limits={"bits": 90})
    assert not verify(feasible, nothing, claimed).ok


@pytest.mark.parametrize("name", [e.name for e in SOLVERS if e.traits["rules"] and not e.traits["only_covers"]])
def test_rules_that_exclude_each_other_are_never_answered_by_a_plan(name: str) -> None:
    rules = (Rule(ALL, np.array([0]), AT_MOST, 1), Rule(ALL, np.array([1, 2]), AT_MOST, 2))
    solution = solve(Problem(LOSS, (BITS,), (Limit("bits", 200),), rules=rules), name)
    assert not solution.feasible
    assert "rule 0" in solution.certificate.blame
    assert "rule 1" in solution.certificate.blame


def test_a_large_problem_that_nothing_satisfies_is_refused_with_a_proof() -> None:
    """What is cheap in bits is dear in latency: each limit can be met alone, both cannot."""
    one = instance("hetero", 20_000, 8, 1)
    bits = one.resources[0].costs()
    late = bits.max(axis=1, keepdims=True) - bits
    limits = tuple(Limit(name, int(c.max(axis=1).sum() * 0.45)) for name, c in (("bits", bits), ("latency_us", late)))
    given = Problem(one.loss, (Resource("bits", matrix=bits), Resource("latency_us", matrix=late)), limits)
    refused = solve(given, time_limit=60)
    assert refused.solver == "vector"
    assert refused.certificate.status == "infeasible"
    assert "limit bits and limit latency_us together" in refused.certificate.blame
    assert impossible(given, refused.certificate.multipliers)
    assert verify(given, refused.choice, refused.certificate).ok


def test_the_least_total_is_said_where_its_program_ends_within_rounding() -> None:
    """Regression: an optimum with a gap of rounding was no optimum; the limit's own least total was said instead."""
    assert disagreement(random_problem(np.random.default_rng([1, 657]))) is None
