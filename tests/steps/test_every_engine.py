"""A plan made for an engine loads in it, whatever the engine: menu and ties first, and its container holds the plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bitwright.core.errors import Infeasible, Unsupported
from bitwright.core.plan import plan_from_json
from bitwright.engines import engine_names, load_profile, preflight
from bitwright.models import inspect, open_model
from quantizers.containers.catalog import CONTAINERS
from tests.models_inspect.checkpoints import LAYOUTS, SIZES, write
from tests.steps.bench import Bench

#: Their codes are no formats here: plans in other formats are exported for them.
OWN_CODES = {"exllamav3", "tensorrt-llm"}


@pytest.mark.parametrize("layout", ["llama-gqa", "mixtral-listed"])
@pytest.mark.parametrize("engine", engine_names())
def test_plans_for_an_engine_always_load(engine: str, layout: str, bench: Bench, tmp_path: Path) -> None:
    config, shapes = LAYOUTS[layout]
    folder = write(tmp_path / "m", ({**SIZES, **config}, shapes))
    inventory, profile = inspect(open_model(str(folder))), load_profile(engine)
    asked: dict[str, Any] = {
        "model": str(folder),
        "budget": "12bpw",
        "metric": "weight-mse",
        "confirm": False,
        "time_limit": 1.0,
    }
    if engine in OWN_CODES:
        with pytest.raises((Unsupported, Infeasible)):
            bench.run("plan", engine=engine, **asked)
        return
    found = bench.run("plan", engine=engine, **asked)
    assert found["feasible"], found["infeasible"]
    plan = plan_from_json(found["plan"])
    kept = {unit.name for unit in inventory.units if unit.tensor in plan.kept}
    assert preflight(plan, inventory.keep(kept, "kept"), profile) == []
    assert any(not unit.format.endswith("16") for unit in plan.units)
    if profile.container is None:
        return
    done = bench.run("execute", model=str(folder), plan=found["plan"], to=profile.container, out=tmp_path / "out")
    assert done["checkpoint"]["file_bytes"] > 0
    if engine == CONTAINERS.get(profile.container).traits["engine"]:
        assert not [text for text in done["checkpoint"]["warnings"] if "loads this checkpoint" in text]
    formats = {
        name: format.name
        for name, format in CONTAINERS.load(profile.container).read(tmp_path / "out").formats().items()
    }
    assert formats == plan.formats()
