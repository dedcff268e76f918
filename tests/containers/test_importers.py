"""Other tools' mixes become plans: what a container writes is read back, and what cannot be said is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bitwright.core.errors import InvalidModel, InvalidPlan, UnknownName, Unsupported
from bitwright.core.formats import parse_format
from bitwright.engines import EXPORTERS, load_profile, preflight
from bitwright.models import inspect, open_model
from quantizers.containers.catalog import CONTAINERS
from quantizers.importers.catalog import IMPORTERS
from tests.engines.plans import plan_of
from tests.models_inspect.checkpoints import LAYOUTS, safetensors, write
from tests.steps.bench import Bench
from worker.steps.importing import _importer, import_plan

SIZES = {"vocab_size": 128, "max_position_embeddings": 64, "intermediate_size": 96}
MENUS = {
    "gguf": ("q4_0", "q8_0", "fp16", "iq4_nl", "bf16"),
    "compressed-tensors": ("int4-sym-g32", "int3-sym-channel", "bf16", "int8-sym-g32"),
    "gptq": ("int4-sym-g32", "int5-g32", "bf16", "int8-sym-channel"),
}


@pytest.fixture
def model(tmp_path: Path) -> Any:
    config, shapes = LAYOUTS["llama-gqa"]
    source = open_model(str(write(tmp_path / "model", ({**config, **SIZES}, shapes))))
    return source, inspect(source)


def mix(inventory: Any, menu: tuple[str, ...]) -> dict[str, str]:
    return {u.name: menu[i % len(menu)] if u.layer is not None else "bf16" for i, u in enumerate(inventory.units)}


@pytest.mark.parametrize("name", MENUS)
def test_what_a_container_writes_is_imported(name: str, model: Any, tmp_path: Path) -> None:
    source, inventory = model
    wanted = mix(inventory, MENUS[name])
    formats = [parse_format(wanted[unit.name]) for unit in inventory.units]
    CONTAINERS.load(name).write(source, inventory, formats, tmp_path / "out")
    path = tmp_path / "out" / "model.gguf" if name == "gguf" else tmp_path / "out"
    kind, importer = _importer(path, None)
    assert kind == name
    assert importer.read(path, inventory).formats == wanted


def test_a_tensor_type_file_is_imported_and_patterns_are_not_run(model: Any, tmp_path: Path) -> None:
    _, inventory = model
    wanted = mix(inventory, MENUS["gguf"])
    file = tmp_path / "types.txt"
    file.write_text(EXPORTERS.load("llama.cpp")(plan_of(inventory, wanted)))
    kind, importer = _importer(file, None)
    assert kind == "tensor-types"
    assert importer.read(file, inventory).formats == wanted
    for text in ("(a+)+$=q4_0", r"blk\.0\.=q4_0", r"^blk\.0\.attn_q\.weight$=q4_0"):
        file.write_text(text)
        with pytest.raises(InvalidPlan):
            importer.read(file, inventory)


def checkpoint(folder: Path, config: dict[str, Any], names: list[str]) -> Path:
    """A folder that holds these names, and a config."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "quantization_config": config}))
    data = {name: ("I32", (1,), b"\0\0\0\0") for name in names}
    (folder / "model.safetensors").write_bytes(safetensors(data))
    return folder


def test_autoround(model: Any, tmp_path: Path) -> None:
    _, inventory = model
    modules = [unit.name.removesuffix(".weight") for unit in inventory.units]
    extra = {modules[1]: {"bits": 8}, modules[2]: {"bits": 2, "group_size": 64}, modules[3]: {"bits": 16}}
    config = {"quant_method": "auto-round", "bits": 4, "group_size": 128, "sym": True, "extra_config": extra}
    stored = [f"{m}.qweight" for m in modules if m != modules[3] and m != "lm_head"]
    kind, importer = _importer(checkpoint(tmp_path / "c", config, stored), None)
    found = importer.read(tmp_path / "c", inventory).formats
    assert kind == "auto-round"
    assert [found[f"{m}.weight"] for m in modules[:5]] == [
        "int4-sym-g128", "int8-sym-g128", "int2-sym-g64", "bf16", "int4-sym-g128",
    ]  # fmt: skip


def test_modelopt_and_no_unknown_algorithm_is_taken_as_unquantized(model: Any, tmp_path: Path) -> None:
    _, inventory = model
    modules = [unit.name.removesuffix(".weight") for unit in inventory.units]
    layers = {modules[0]: {"quant_algo": "FP8"}, modules[1]: {"quant_algo": "NVFP4", "group_size": 16}}
    layers |= {modules[2]: {"quant_algo": "W4A16_AWQ", "group_size": 32}}
    config = {
        "quant_method": "modelopt", "quant_algo": "MIXED_PRECISION", "quantized_layers": layers,
        "exclude_modules": ["lm_head"],
    }  # fmt: skip
    kind, importer = _importer(checkpoint(tmp_path / "c", config, ["x"]), None)
    found = importer.read(tmp_path / "c", inventory)
    assert kind == "modelopt"
    assert [found.formats[f"{m}.weight"] for m in modules[:4]] == ["fp8-e4m3", "nvfp4", "int4-sym-g32", "bf16"]
    assert found.notes
    config["quantized_layers"] = {modules[0]: {"quant_algo": "NVFP4_SVD"}}
    with pytest.raises(Unsupported, match="no format here says"):
        importer.read(checkpoint(tmp_path / "d", config, ["x"]), inventory)


@pytest.mark.parametrize("key", ["(a+)+$", "(?:x*)*y", "a{1000}{1000}", "[", "+:" + "a" * 2000, "(.*)*", "(?=a)"])
def test_hostile_patterns_of_dynamic_are_not_run(key: str, model: Any, tmp_path: Path) -> None:
    _, inventory = model
    config = {"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": True, "dynamic": {key: {"bits": 8}}}
    importer = IMPORTERS.load("gptq")
    with pytest.raises(Unsupported):
        importer.read(checkpoint(tmp_path / "c", config, ["x"]), inventory)


def test_other_models_and_other_things_are_refused(model: Any, tmp_path: Path) -> None:
    source, inventory = model
    other = inspect(open_model(str(write(tmp_path / "other", LAYOUTS["qwen3-norms"]))))
    formats = [parse_format("fp16")] * len(inventory.units)
    CONTAINERS.load("gguf").write(source, inventory, formats, tmp_path / "out")
    renamed = type(other)(**{**vars(other), "units": tuple(u for u in other.units if u.shape[0] != 64)})
    assert IMPORTERS.load("gguf").read(tmp_path / "out" / "model.gguf", renamed).formats
    bad = inspect(open_model(str(write(tmp_path / "bert", LAYOUTS["bert"]))))
    with pytest.raises(InvalidPlan, match="another model"):
        IMPORTERS.load("gguf").read(tmp_path / "out" / "model.gguf", bad)
    with pytest.raises(UnknownName, match="looks like a mix"):
        _importer(tmp_path / "nowhere", None)
    with pytest.raises(UnknownName):
        _importer(tmp_path, "zip")
    bare = checkpoint(tmp_path / "c", {"quant_method": "compressed-tensors"}, ["x"])
    with pytest.raises(InvalidModel, match="config_groups"):
        IMPORTERS.load("compressed-tensors").read(bare, inventory)


def test_an_imported_mix_is_a_plan_that_says_how_it_could_be_better(tmp_path: Path, model: Any) -> None:
    """The mix is dealt badly on purpose: most bits to the smallest matrices."""
    from bitwright.core.plan_check import verify_plan

    source, inventory = model
    wanted = {u.name: "q8_0" if "k_proj" in u.name else "q4_0" for u in inventory.units}
    CONTAINERS.load("gguf").write(
        source, inventory, [parse_format(wanted[u.name]) for u in inventory.units], tmp_path / "o"
    )
    bench = Bench(tmp_path / "state")
    found = import_plan(str(tmp_path / "model"), tmp_path / "o" / "model.gguf", bench.context())
    plan, better = found.plan, found.better
    assert better is not None
    assert better.engine == "llama.cpp"
    assert better.totals.bytes <= plan.totals.bytes
    assert better.totals.predicted_loss < plan.totals.predicted_loss
    assert preflight(better, inventory, load_profile("llama.cpp")) == []
    assert verify_plan(better).ok
    assert set(better.formats().values()) <= {"q8_0", "q4_0"}
    assert plan.formats() == wanted
    assert plan.provenance["imported"] == "gguf"
    assert verify_plan(plan).ok
    assert plan.certificate["gap"] >= 0
    assert plan.budget is None
