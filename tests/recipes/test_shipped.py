"""Every shipped recipe runs end to end, execute included, and says what it is; none has a path of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bitwright.core.errors import Unsupported
from bitwright.core.plan import Plan, plan_from_json
from bitwright.core.plan_check import verify_plan
from bitwright.core.problem_file import load_problem
from bitwright.core.recipe import Recipe
from bitwright.recipes import shipped_recipes
from tests.steps.bench import Bench

RECIPES = list(shipped_recipes().values())
by_name = pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)


def run(bench: Bench, model: str, tokens: str, recipe: str, budget: str = "4.5bpw", **more: Any) -> Plan:
    small = {"calibration_tokens": 512, "confirm_tokens": 256, "samples": 1}
    result = bench.run("plan", model=model, recipe=recipe, budget=budget, calibration=tokens, **small, **more)
    assert result["feasible"], result["infeasible"]
    return plan_from_json(result["plan"])


@by_name
def test_a_recipe_plans_measures_and_writes(
    bench: Bench, models: dict[str, str], tokens: str, recipe: Recipe, tmp_path: Path
) -> None:
    kept = tmp_path / "problem.npz"
    plan = run(
        bench, models["mixtral"], tokens, recipe.name, to="packed", out=tmp_path / "checkpoint", problem_out=kept
    )
    assert plan.provenance["recipe"] == recipe.name
    assert plan.provenance["quantizer"] == recipe.quantizer
    assert plan.measured is not None
    assert plan.totals.bits_per_weight <= 4.5
    assert verify_plan(plan).ok
    verdict = verify_plan(plan, load_problem(kept))
    assert verdict.ok, verdict.failures
    assert any((tmp_path / "checkpoint").iterdir())


@by_name
def test_a_recipe_says_what_it_is(recipe: Recipe) -> None:
    assert recipe.when
    assert recipe.allocates
    assert recipe.cost
    assert (recipe.paper is None) == (recipe.year is None)


@pytest.mark.parametrize("name", [r.name for r in RECIPES if "experts" in r.requires])
def test_a_recipe_of_experts_refuses_a_dense_model(
    bench: Bench, models: dict[str, str], tokens: str, name: str
) -> None:
    with pytest.raises(Unsupported, match="experts") as error:
        run(bench, models["llama"], tokens, name)
    assert error.value.hint is not None
