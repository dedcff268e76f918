"""The whole answer of a preflight: device, version, nearest plan that loads, and a model known from its plan alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bitwright import face
from bitwright.core.errors import InvalidPlan, UnknownName
from bitwright.core.formats import parse_format
from bitwright.core.table import SensitivityTable
from bitwright.engines import engine_names, load_profile, preflight
from bitwright.engines.answer import answer
from bitwright.engines.nearest import nearest_loadable
from bitwright.models.planned import inventory_of
from solvers import solve
from tests.engines.plans import inventory, plan_of, tied
from tests.models_inspect.checkpoints import LAYOUTS


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_plan_alone_tells_the_units_and_families_of_its_model(layout: str) -> None:
    model = inventory(layout)
    found = inventory_of(plan_of(model, ["int4-sym-g32"]))
    for mine, theirs in zip(found.units, model.units, strict=True):
        assert (mine.name, mine.tensor, mine.shape, mine.index) == (
            theirs.name,
            theirs.tensor,
            theirs.shape,
            theirs.index,
        )
        assert (mine.layer, mine.expert, mine.module) == (theirs.layer, theirs.expert, theirs.module)
        assert mine.families == theirs.families


def test_a_plan_without_shapes_is_refused() -> None:
    plan = plan_of(inventory("llama-gqa"), ["bf16"])
    bare = plan.model_copy(update={"units": tuple(unit.model_copy(update={"shape": None}) for unit in plan.units)})
    with pytest.raises(InvalidPlan, match="shape"):
        inventory_of(bare)


@pytest.mark.parametrize("name", engine_names())
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_nearest_plan_loads_and_costs_what_it_says(name: str, layout: str) -> None:
    profile, model = load_profile(name), inventory(layout)
    plan = plan_of(model, ["int3-g40", "int8-sym-g32", "bf16", "int5-g64"])
    found = nearest_loadable(plan, model, profile)
    if found is None:
        return
    assert preflight(found.formats, model, profile) == []
    sizes = {u.name: u.shape for u in model.units}
    cost = sum(parse_format(f).storage(sizes[n]).bytes for n, f in found.formats.items())
    assert cost - plan.totals.bytes == found.bytes_delta
    assert {unit for unit, _, _ in found.changed} == {n for n, f in plan.formats().items() if f != found.formats[n]}


def test_the_nearest_plan_of_a_loadable_plan_is_itself() -> None:
    model, profile = inventory("mixtral-listed"), load_profile("vllm")
    plan = tied(model, profile.tie_kinds, ["int4-sym-g32", "int8-sym-g32"])
    plan = plan_of(model, {**plan.formats(), "lm_head.weight": "bf16"})
    found = nearest_loadable(plan, model, profile)
    assert found is not None
    assert (found.changed, found.bytes_delta) == ((), 0)
    assert answer(plan, model, "vllm").loads


def test_with_a_table_the_best_loadable_plan_says_what_ties_cost(tmp_path: Path) -> None:
    """Uneven experts against one format a block (vLLM) and one a role (llama.cpp), in the same bytes."""
    model = inventory("mixtral-listed")
    formats = ("int2-sym-g32", "int4-sym-g32", "int8-sym-g32", "bf16")
    rng = np.random.default_rng(0)
    weight = rng.lognormal(0, 2, (len(model.units), 1))
    table = SensitivityTable(
        model, formats, weight * np.array([4.0, 1.0, 0.1, 0.0]), np.zeros((len(model.units), 4)), "fisher", "nats"
    )
    menu = np.array(load_profile("gptqmodel").allowed(model, formats), bool)
    budget = int(0.3 * sum(unit.stored_bytes for unit in model.units))
    free = solve(table.problem(budget, allowed=menu), "auto")
    chosen = {u.name: formats[j] for u, j in zip(model.units, free.choice.tolist(), strict=True)}
    plan = plan_of(model, chosen)
    totals = plan.totals.model_copy(update={"predicted_loss": float(free.loss or 0.0)})
    plan = plan.model_copy(update={"totals": totals})
    assert answer(plan, model, "gptqmodel").loads
    table.save(tmp_path / "table.npz")
    found = face.preflight(plan, "vllm", table=tmp_path / "table.npz")
    assert not found.loads
    assert found.best is not None
    assert found.best.bytes <= plan.totals.bytes
    assert preflight(found.best.formats, model, load_profile("vllm")) == []
    assert found.best.loss_delta > 0, "free experts are worth something here"
    assert found.best.predicted_loss == pytest.approx(plan.totals.predicted_loss + found.best.loss_delta)
    assert found.nearest is not None
    assert found.to_json()["best"] == found.best.to_json()


#: Its EXL3 codes are no format here: plans for it are exported, and none of ours loads.
NOT_AT_ALL = {"exllamav3"}


@pytest.mark.parametrize("name", engine_names())
@pytest.mark.parametrize(
    "layout", ["llama-gqa", "mixtral-listed", "qwen3-moe-listed", "qwen3-moe-stacked", "bert", "vit"]
)
def test_uneven_experts_and_odd_formats_get_a_nearest_plan_from_every_engine(name: str, layout: str) -> None:
    profile, model = load_profile(name), inventory(layout)
    plan = plan_of(model, ["int4-sym-g32", "int8-sym-g32", "int2-g32", "int1-sym-g32", "q4_0", "bf16"])
    found = answer(plan, model, name)
    assert not found.loads
    assert found.reasons
    if name in NOT_AT_ALL:
        assert found.nearest is None
        return
    assert found.nearest is not None
    assert preflight(found.nearest.formats, model, profile) == []


def test_with_a_table_the_nearest_plan_tells_its_loss() -> None:
    model, profile = inventory("llama-gqa"), load_profile("transformers")
    formats = ("int4-g32", "int4-sym-g32")
    loss = np.tile(np.array([1.0, 3.0]), (len(model.units), 1))
    table = SensitivityTable(model, formats, loss, np.zeros_like(loss), "weight-mse", "nats")
    found = nearest_loadable(plan_of(model, ["int4-g32"]), model, profile, table=table)
    assert found is not None
    if {after for _, _, after in found.changed} == {"int4-sym-g32"}:
        assert found.loss_delta == 2.0 * len(model.units)
    unknown = nearest_loadable(plan_of(model, ["int2-g32"]), model, profile, table=table)
    assert unknown is not None
    assert unknown.loss_delta is None


@pytest.mark.parametrize(
    ("engine", "device", "reason"),
    [
        ("vllm", "metal", "known to run on cuda, cpu, not on metal"),
        ("vllm", "cuda:7.0", "needs compute capability 7.5, not 7.0"),
        ("vllm", "cpu", "on cpu widths are 4, not 8"),
        ("vllm", "cuda:9.0", None),
        ("vllm@0.33", "cuda", None),
        ("transformers", "cpu", "only symmetric"),
    ],
)
def test_devices(engine: str, device: str, reason: str | None) -> None:
    model = inventory("llama-gqa")
    choice = dict.fromkeys((unit.name for unit in model.units), "int8-sym-g32") | {"lm_head.weight": "bf16"}
    if engine == "transformers":
        choice["lm_head.weight"] = "int4-g32"
    found = answer(plan_of(model, choice), model, engine, device=device)
    texts = [str(why) for why in found.reasons]
    assert found.loads == (reason is None), texts
    assert reason is None or any(reason in text for text in texts)


def test_a_device_changes_the_nearest_plan() -> None:
    model = inventory("llama-gqa")
    choice = dict.fromkeys((unit.name for unit in model.units), "int8-sym-g32") | {"lm_head.weight": "bf16"}
    found = answer(plan_of(model, choice), model, "vllm", device="cpu").nearest
    assert found is not None
    assert {name for name in found.formats.values() if name.startswith("int")} <= {"int4-sym-g32", "int4-g32"}


@pytest.mark.parametrize("engine", engine_names())
def test_no_engine_loads_matrices_that_are_stored_with_their_inputs_first(engine: str) -> None:
    """GPT-2's Conv1D: `gptq` and `mlx` files of it were written without a word, their groups along the outputs."""
    found = replace(inventory("llama-gqa"), model_type="gpt2")
    plan = {unit.name: "int4-sym-g32" for unit in found.units}
    assert any("(in, out)" in str(reason) for reason in preflight(plan, found, load_profile(engine)))
    assert not any(
        "(in, out)" in str(reason) for reason in preflight(plan, inventory("llama-gqa"), load_profile(engine))
    )


def test_unknown_devices_engines_and_versions_are_typed_errors() -> None:
    model = inventory("llama-gqa")
    plan = plan_of(model, ["bf16"])
    for engine, device in (("vllm", "cuda:x"), ("vllm", "GPU 1"), ("vlm", None), ("vllm@0.1", None)):
        with pytest.raises(UnknownName):
            answer(plan, model, engine, device=device)


def test_another_model_has_no_nearest_plan() -> None:
    model = inventory("llama-gqa")
    plan = plan_of(model, ["int4-sym-g32"])
    other = plan.model_copy(update={"model": plan.model.model_copy(update={"digest": "sha256:other"})})
    found = answer(other, model, "transformers")
    assert not found.loads
    assert found.nearest is None
