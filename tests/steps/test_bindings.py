"""Limits and rules in words with their prices, and plans made anew from losses drawn again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import solvers
from bitwright.core.problem import Problem
from bitwright.core.solution import Solution
from bitwright.core.table import SensitivityTable
from tests.dashboard.sample_state import llama_units, moe_units, plan_of, ruled_problem, table_of
from worker.steps.bindings import bindings
from worker.steps.redraw import redrawn


@pytest.fixture(scope="module")
def ruled() -> tuple[SensitivityTable, Problem, Solution]:
    table = table_of("hf:org/ruled", llama_units(4), 3)
    problem = ruled_problem(table, 4.5)
    return table, problem, solvers.solve(problem)


def test_every_limit_and_rule_is_named_in_words(ruled: tuple[SensitivityTable, Problem, Solution]) -> None:
    table, problem, solution = ruled
    found = {row.name: row for row in bindings(problem, solution, table)}
    assert list(found) == ["bytes", *(f"bytes@layer{i}" for i in range(4)), *(f"rule:{i}" for i in range(4))]
    assert found["bytes"].words == "bytes of all planned units"
    assert found["bytes@layer2"].words == "bytes of layer 2"
    assert found["rule:3"].words == "layer 3: at least 2 of 5 choices in int6-g64"
    assert found["rule:3"].sense == "at least"
    assert {table.inventory.units[i].layer for i in found["rule:3"].units or ()} == {3}
    names = [table.inventory.units[i].name for i in found["rule:3"].units or ()]
    assert sum("_proj" in name for name in names) == 7, "units tied to a counted one belong to the rule"


def test_bindings_say_what_the_certificate_says(ruled: tuple[SensitivityTable, Problem, Solution]) -> None:
    table, problem, solution = ruled
    for row in bindings(problem, solution, table):
        assert row.price == solution.certificate.multipliers.get(row.name, 0.0)
        if row.kind == "limit":
            assert row.used == solution.certificate.cost[row.name] <= row.value
        else:
            assert row.used >= row.value == 2


def test_a_rule_about_experts_counts_experts() -> None:
    table = table_of("hf:org/experts", moe_units(2, 4), 3)
    plain = table.problem(int(4 * table.inventory.weights / 8), tie_kinds=("expert",))
    first = [i for i, unit in enumerate(table.inventory.units) if unit.layer == 1 and unit.module.endswith("gate_proj")]
    rule = replace(ruled_problem(table_of("hf:org/x", llama_units(1), 3), 6).rules[0], units=np.array(first), count=1)
    problem = replace(plain, rules=(rule,))
    row = bindings(problem, solvers.solve(problem), table)[1]
    assert row.words == "layer 1: at least 1 of 4 experts in int6-g64"
    assert len(row.units or ()) == 12


def test_redrawn_plans_keep_limits_rules_and_ties(
    ruled: tuple[SensitivityTable, Problem, Solution], monkeypatch: pytest.MonkeyPatch
) -> None:
    table, problem, solution = ruled
    seen: list[Problem] = []
    solve = solvers.solve

    def spy(asked: Problem, *args: object, **options: object) -> Solution:
        seen.append(asked)
        return solve(asked, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("worker.steps.redraw.solvers.solve", spy)
    found = redrawn(table, problem, solution, "auto", 0)
    assert found is not None
    assert found.draws == len(seen)
    assert all(asked.limits == problem.limits and asked.rules == problem.rules for asked in seen)
    # The oracle: the same draws counted by hand.
    share = np.mean([solve(asked).choice == solution.choice for asked in seen], axis=0)
    assert found.units == pytest.approx(share.mean())
    assert dict(found.kept) == pytest.approx({i: v for i, v in enumerate(share) if v < 1}, abs=1e-6)
    assert 0 < found.units < 1
    assert redrawn(table, problem, solution, "auto", 0) == found, "the same seed, the same answer"


def test_without_errors_or_with_tiny_ones_nothing_is_said_or_nothing_changes(
    ruled: tuple[SensitivityTable, Problem, Solution],
) -> None:
    table, problem, solution = ruled
    for errors in (np.full_like(table.stderr, np.nan), np.zeros_like(table.stderr)):
        assert redrawn(replace(table, stderr=errors), problem, solution, "auto", 0) is None
    still = redrawn(replace(table, stderr=table.stderr * 1e-9), problem, solution, "auto", 0)
    assert still is not None
    assert still.units == still.bytes == 1.0
    assert still.kept == ()


def test_bindings_and_redraws_leave_the_digest_alone(ruled: tuple[SensitivityTable, Problem, Solution]) -> None:
    table, problem, _ = ruled
    plan = plan_of(table, 4.5, problem=problem)
    assert plan.bindings
    assert plan.redrawn is not None
    assert plan.model_copy(update={"bindings": (), "redrawn": None}).digest == plan.digest
