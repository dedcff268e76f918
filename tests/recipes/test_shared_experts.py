"""Shared experts, which every token passes: found in models of transformers, and kept at 4 bits beside attention."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bitwright.core.plan import Plan, plan_from_json
from bitwright.models import inspect, open_model
from quantizers.containers.catalog import CONTAINERS
from tests.sensitivity.tiny_models import save_model
from tests.steps.bench import Bench

SMALL = {"calibration_tokens": 512, "confirm_tokens": 256}


@pytest.fixture(scope="module", params=["qwen2-moe", "deepseek"])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model with shared experts beside the routed ones, one of them with a dense first block."""
    return str(save_model(request.param, tmp_path_factory.mktemp("shared") / request.param))


def planned(bench: Bench, model: str, text: str, recipe: str, budget: str, out: Path) -> Plan:
    result = bench.run(
        "plan", model=model, recipe=recipe, budget=budget, calibration=text, to="packed", out=out, **SMALL
    )
    assert result["feasible"], result["infeasible"]
    return plan_from_json(result["plan"])


@pytest.mark.parametrize("recipe", ["quantmoe", "mc-moe"])
def test_shared_experts_have_four_bits_like_attention(
    bench: Bench, shared: str, tokens: str, recipe: str, tmp_path: Path
) -> None:
    plan = planned(bench, shared, tokens, recipe, "4.2bpw", tmp_path / "out")
    found = [unit for unit in inspect(open_model(shared, allow_path=True)).units if "shared_expert" in unit.name]
    assert found
    assert all(unit.expert is None for unit in found)
    written = {name: f.name for name, f in CONTAINERS.load("packed").read(tmp_path / "out").formats().items()}
    assert written == plan.formats()
    assert {written[unit.name] for unit in found} == {"int4-g64"}
    assert {written[unit.name] for unit in plan.units if unit.expert is not None} - {"int4-g64"}


def test_shared_experts_can_have_a_menu_of_their_own(bench: Bench, shared: str, tokens: str, tmp_path: Path) -> None:
    """The paper's preset *Shared* the other way round too: these alone at 8 bits, by the pattern of their modules."""
    own = tmp_path / "own.toml"
    own.write_text(
        'name = "own"\nsummary = "x"\nmetric = "rank"\nquantizer = "gptq"\nformats = ["int2-g64", "int4-g64"]\n'
        '[metric_options]\nby = "frequency"\n'
        '[[menus]]\nmodules = ["*shared_expert*"]\nformats = ["int8-g64"]\n'
        '[[menus]]\nclasses = ["dense", "head"]\nformats = ["int4-g64"]\n'
    )
    plan = planned(bench, shared, tokens, str(own), "7bpw", tmp_path / "out")
    for unit in plan.units:
        assert (unit.format == "int8-g64") is ("shared_expert" in unit.name), unit.name


@pytest.mark.parametrize("shared", ["qwen2-moe"], indirect=True)
def test_the_tied_plan_of_the_warning_keeps_the_menus_of_the_recipe(
    bench: Bench, shared: str, tokens: str, tmp_path: Path
) -> None:
    """Attention below its 4 bits had paid for it: ties seemed to gain where they can only cost."""
    plan = planned(bench, shared, tokens, "quantmoe", "4.2bpw", tmp_path / "out")
    words = next(words for words in plan.warnings if "tied by role" in words)
    tied, own = (float(number) for number in re.findall(r"predicted to lose (\S+) instead of (\S+)", words)[0])
    assert tied >= own
