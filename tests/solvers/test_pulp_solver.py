"""`pulp`: the optimum of small problems, no trust in CBC's word, and a clock that is kept from outside."""

from __future__ import annotations

import time

import numpy as np
import pytest

from bitwright.core.certificate import verify
from bitwright.core.errors import JobFailed
from bitwright.core.problem import AT_LEAST, Limit, Problem, Rule, compact_bits
from solvers import cbc, solve
from solvers.linear_model import build
from solvers.reduce import reduce_problem
from tests.solvers.instances import instance

pulp = pytest.importorskip("pulp")


@pytest.mark.parametrize("power", [-60, 0, 40])
def test_the_optimum_at_any_scale_of_loss(power: int) -> None:
    given = instance("layers", 40, 4, 0)
    scaled = Problem(np.ldexp(given.loss, power), given.resources, given.limits)
    mine, best = solve(scaled, "pulp"), solve(scaled, "hull")
    assert mine.loss == pytest.approx(best.loss, rel=1e-9)
    assert mine.info["cbc"] == "optimal"
    assert mine.certificate.status == "bounded"  # CBC's word is no proof
    assert verify(scaled, mine.choice, mine.certificate).ok


def test_rules_are_kept_and_conflicts_named() -> None:
    loss, bits, all_ = np.array([[4.0, 1.0]] * 3), compact_bits([10] * 3, [2, 4]), np.arange(3)
    two = (Rule(all_, np.array([0]), AT_LEAST, 2),)
    assert sorted(solve(Problem(loss, rules=two), "pulp").choice.tolist()) == [0, 0, 1]
    high = (Rule(all_, np.array([1]), AT_LEAST, 3),)
    blame = solve(Problem(loss, (bits,), (Limit("bits", 100),), rules=high), "pulp").certificate.blame
    assert "limit bits" in blame
    assert "rule 0" in blame


def test_a_clock_that_runs_out_leaves_a_verified_plan() -> None:
    given = instance("correlated", 400, 8, 0)
    begin = time.monotonic()
    solution = solve(given, "pulp", time_limit=1.0)
    assert time.monotonic() - begin < 30  # generous: shared machines pause
    assert verify(given, solution.choice, solution.certificate).ok


def test_a_missing_program_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    class Missing:
        path = "/nonexistent/cbc"

    monkeypatch.setattr(pulp, "PULP_CBC_CMD", lambda **_: Missing())
    reduced = reduce_problem(instance("layers", 8, 4, 0))
    with pytest.raises(JobFailed, match="CBC"):
        cbc.run(build(reduced, reduced.rows).model, seconds=10.0)
