"""What `solve` refuses, and what it says when nothing fits."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import pytest

from bitwright.core.certificate import verify
from bitwright.core.errors import InvalidSetting, UnknownName, Unsupported
from bitwright.core.problem import AT_LEAST, AT_MOST, Limit, Problem, Resource, Rule, compact_bits
from solvers import solve
from solvers.catalog import SOLVERS
from tests.solvers.instances import instance

LOSS = np.array([[4.0, 1.0], [4.0, 1.0], [4.0, 1.0]])
BITS = compact_bits([10, 10, 10], [2, 4])
ALL = np.arange(3)


@pytest.mark.parametrize("name", [entry.name for entry in SOLVERS if not entry.traits["only_covers"]])
def test_too_small_a_limit_is_an_answer(name: str) -> None:
    given = Problem(LOSS, (BITS,), (Limit("bits", 59),))
    solution = solve(given, name)
    assert not solution.feasible
    assert solution.certificate.smallest_limit == {"bits": 60}
    assert "bits" in solution.certificate.blame
    assert "60" in solution.certificate.blame
    assert verify(given, solution.choice, solution.certificate).ok


@pytest.mark.parametrize("name", ["milp", "brute"])
def test_an_impossible_rule_is_named(name: str) -> None:
    given = Problem(LOSS, rules=(Rule(ALL, np.array([0]), AT_MOST, 3), Rule(ALL[:2], np.array([1]), AT_LEAST, 3)))
    solution = solve(given, name)
    assert "rule 1" in solution.certificate.blame


@pytest.mark.parametrize("name", ["milp", "brute"])
def test_a_conflict_names_what_excludes_each_other(name: str) -> None:
    rules = (Rule(ALL, np.array([0]), AT_MOST, 2), Rule(ALL, np.array([1]), AT_LEAST, 3))
    given = Problem(LOSS, (BITS,), (Limit("bits", 100),), rules=rules)
    blame = solve(given, name).certificate.blame
    assert "limit bits" in blame
    assert "rule 1" in blame
    assert "rule 0" not in blame


def test_a_feature_that_is_not_declared_is_refused() -> None:
    given = Problem(LOSS, (BITS,), (Limit("bits", 100),), rules=(Rule(ALL, np.array([0]), AT_MOST, 1),))
    with pytest.raises(Unsupported, match="count rules") as caught:
        solve(given, "hull")
    assert "milp" in caught.value.hint


def test_two_limits_are_refused_by_hull_and_solved_by_auto() -> None:
    latency = Resource("latency_us", matrix=np.array([[1.0, 0.5]] * 3))
    given = Problem(LOSS, (BITS, latency), (Limit("bits", 100), Limit("latency_us", 2.2)))
    with pytest.raises(Unsupported):
        solve(given, "hull")
    solution = solve(given)
    assert sorted(solution.choice.tolist()) == [0, 1, 1]


def test_too_many_choices_for_brute() -> None:
    with pytest.raises(Unsupported, match="brute"):
        solve(instance("layers", 224, 4, 0), "brute")


def test_unknown_solver() -> None:
    with pytest.raises(UnknownName, match="hull"):
        solve(Problem(LOSS), "hul")


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan")])
def test_time_limit_must_be_positive(limit: float) -> None:
    with pytest.raises(InvalidSetting):
        solve(Problem(LOSS), time_limit=limit)


def test_the_time_limit_is_kept_by_milp() -> None:
    given = instance("correlated", 400, 4, 0)
    begin = time.monotonic()
    solution = solve(given, "milp", time_limit=1.0)
    assert time.monotonic() - begin < 30  # generous: shared machines pause; HiGHS alone needs hours here
    assert solution.certificate.status == "bounded"
    assert verify(given, solution.choice, solution.certificate).ok


def test_hull_imports_numpy_only() -> None:
    code = (
        "import sys, numpy as np; from solvers import solve; from bitwright.core.problem import *;"
        "solve(Problem(np.ones((2, 2)), (compact_bits([1, 1], [1, 2]),), (Limit('bits', 3),)));"
        "print([m for m in ('scipy', 'highspy', 'torch', 'pydantic', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
