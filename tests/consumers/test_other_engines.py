"""GPTQModel, MLX, AutoRound, ModelOpt, torchao and the old compressed-tensors read what we write as we mean it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitwright.core.formats import IntFormat, parse_format
from bitwright.engines import EXPORTERS
from bitwright.engines.names import unfused_experts
from bitwright.models import inspect, open_model
from quantizers.containers.catalog import CONTAINERS
from quantizers.importers.catalog import IMPORTERS
from tests.consumers.asking import ask, dense_logits, rms
from tests.engines.plans import plan_of, tied

MODELS = Path(__file__).resolve().parents[1] / "models"
LLAMA, MIXTRAL = MODELS / "llama-stdlib", MODELS / "mixtral-stdlib"
IDS = list(range(3, 35))


def written(name: str, folder: Path, out: Path, menu: tuple[str, ...], head: str = "fp16") -> tuple[Any, Any]:
    source = open_model(str(folder))
    inventory = inspect(source)
    order = {tie: i for i, tie in enumerate(dict.fromkeys(inventory.tie_ids(("expert_role",))))}
    formats = [
        parse_format(head if unit.layer is None else menu[order[tie] % len(menu)])
        for unit, tie in zip(inventory.units, inventory.tie_ids(("expert_role",)), strict=True)
    ]
    container = CONTAINERS.load(name)
    container.write(source, inventory, formats, out)
    return container.read(out), inventory


@pytest.mark.parametrize(
    ("layout", "menu"),
    [
        ("gptq", ("int4-sym-g32", "int8-sym-g32", "int3-sym-g32", "int2-sym-g64", "fp16")),
        ("gptq_v2", ("int4-g32", "int8-sym-g32", "int3-g32", "int2-g64")),
        ("gptq_p", ("int4-sym-g32", "int5-sym-g32", "int6-g32", "int7-sym-g64", "int3-g32")),
    ],
)
def test_gptqmodel_loads_dynamic_checkpoints(layout: str, menu: tuple[str, ...], tmp_path: Path) -> None:
    checkpoint, inventory = written("gptq", LLAMA, tmp_path / "out", menu)
    assert checkpoint.container.layout == layout
    same_in_gptqmodel(LLAMA, checkpoint, inventory, tmp_path)


def same_in_gptqmodel(folder: Path, checkpoint: Any, inventory: Any, tmp_path: Path) -> None:
    """GPTQModel finds every module with its own width, holds our weights, and computes our logits."""
    answer = ask("gptqmodel_load", tmp_path / "answer", tmp_path / "out", IDS)
    modules = {unit.name: unfused_experts(unit.name.removesuffix(".weight")) for unit in inventory.units}
    wanted = {modules[name]: format for name, format in checkpoint.formats().items()}
    assert answer["bits"] == {name: f.width for name, f in wanted.items() if isinstance(f, IntFormat)}
    arrays = dict(answer["arrays"])
    logits = arrays.pop("logits")
    for name, module in modules.items():
        ours = checkpoint.dequantized(name)
        # Its CPU kernel holds weights in bfloat16: 8 bits of mantissa.
        if module in arrays:
            assert np.abs(arrays[module] - ours).max() <= 2.0**-7 * np.abs(ours).max(), name
    ours = dense_logits(folder, IDS, {unit.tensor: checkpoint.dequantized(unit.name) for unit in inventory.units})
    effect = rms(ours - dense_logits(folder, IDS, {}))
    assert rms(logits - ours) < 0.03 * rms(ours)
    assert rms(logits - ours) < 0.3 * effect


@pytest.mark.parametrize("layout", ["gptq", "gptq_p"])
def test_gptqmodel_gives_every_expert_its_own_bits(layout: str, tmp_path: Path) -> None:
    """Experts of one role in different formats, and the matrices of one expert too: no other engine loads that."""
    menu = ["int4-sym-g32", "int8-sym-g32", "int3-sym-g32", "int2-sym-g32", "fp16"]
    menu += ["int5-sym-g32", "int6-g32", "int7-sym-g64"] if layout == "gptq_p" else []
    source = open_model(str(MIXTRAL))
    inventory = inspect(source)
    formats = [parse_format("fp16" if u.layer is None else menu[i % len(menu)]) for i, u in enumerate(inventory.units)]
    CONTAINERS.load("gptq").write(source, inventory, formats, tmp_path / "out")
    checkpoint = CONTAINERS.load("gptq").read(tmp_path / "out")
    assert checkpoint.container.layout == layout
    same_in_gptqmodel(MIXTRAL, checkpoint, inventory, tmp_path)


@pytest.mark.parametrize("folder", [LLAMA, MIXTRAL])
def test_mlx_reads_our_stream(folder: Path, tmp_path: Path) -> None:
    menu = ("int4-g32", "int8-sym-g32", "int3-g32", "int6-sym-g64", "int2-g64", "int5-g32", "fp16")
    checkpoint, inventory = written("mlx", folder, tmp_path / "out", menu, head="int6-g32")
    answer = ask("mlx_load", tmp_path / "answer", tmp_path / "out", IDS)
    arrays = answer["arrays"]
    if folder == LLAMA:
        for unit, format in zip(inventory.units, checkpoint.unit_formats, strict=True):
            if isinstance(format, IntFormat):
                ours = checkpoint.dequantized(unit.name)
                found = arrays[unit.name.removesuffix(".weight")]
                assert np.abs(found - ours).max() <= 2.0**-20 * np.abs(ours).max(), unit.name
    weights = {unit.tensor: checkpoint.dequantized(unit.name) for unit in inventory.units}
    ours, original = dense_logits(folder, IDS, weights), dense_logits(folder, IDS, {})
    # mlx computes in float16.
    assert rms(arrays["logits"] - ours) < 0.02 * rms(ours)
    assert rms(arrays["logits"] - ours) < 0.2 * rms(ours - original)


def test_compressed_tensors_017_packs_as_our_old_layout(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    codes = {b: rng.integers(0, 1 << b, (16, 96)).astype(np.uint8) for b in range(1, 9)}
    signed = {str(b): (c.astype(np.int16) - (1 << (b - 1))).astype(np.int8) for b, c in codes.items()}
    np.savez(tmp_path / "codes.npz", **signed)
    answer = ask("old_compressed_tensors", tmp_path / "answer", tmp_path / "codes.npz")
    assert answer["version"].startswith("0.17")
    old, new = (CONTAINERS.load(name) for name in ("compressed-tensors-0.17", "compressed-tensors"))
    for width, values in codes.items():
        theirs = answer["arrays"][str(width)]
        assert np.array_equal(theirs, old.pack_codes(values, width).view(np.int32)), width
        assert (theirs.shape == new.pack_codes(values, width).shape) == (width in (1, 2, 4, 8))


def exported(target: str, tmp_path: Path, menu: tuple[str, ...], name: str) -> tuple[Path, Any]:
    plan = plan_of(inspect(open_model(str(LLAMA))), menu)
    file = tmp_path / name
    file.write_text(EXPORTERS.load(target)(plan))
    return file, plan


def test_modelopt_takes_our_config(tmp_path: Path) -> None:
    file, plan = exported("modelopt", tmp_path, ("int4-sym-g32", "int8-sym-channel", "fp16"), "config.py")
    answer = ask("modelopt_config", tmp_path / "answer", LLAMA, file)
    formats = {name.removesuffix(".weight"): parse_format(f) for name, f in plan.formats().items()}
    assert answer["bits"] == {name: f.width for name, f in formats.items() if isinstance(f, IntFormat)}


def test_modelopt_checkpoints_are_imported(tmp_path: Path) -> None:
    """Its own export, of a plan whose fused matrices share a format, as it demands."""
    model = inspect(open_model(str(LLAMA)))
    choice = tied(model, ("qkv", "gate_up"), ("int4-sym-g64", "int8-sym-channel")).formats()
    plan = plan_of(model, {u.name: choice[u.name] if u.layer is not None else "fp16" for u in model.units})
    file = tmp_path / "config.py"
    file.write_text(EXPORTERS.load("modelopt")(plan))
    ask("modelopt_export", tmp_path / "answer", LLAMA, file, tmp_path / "made")
    importer = IMPORTERS.load("modelopt")
    assert importer.recognizes(tmp_path / "made")
    assert importer.read(tmp_path / "made", model).formats == plan.formats()


def test_torchao_takes_our_config(tmp_path: Path) -> None:
    file, plan = exported("torchao", tmp_path, ("int4-sym-g32", "int8-sym-channel", "int3-g32", "fp16"), "config.py")
    answer = ask("torchao_config", tmp_path / "answer", LLAMA, file)
    formats = {name.removesuffix(".weight"): parse_format(f) for name, f in plan.formats().items()}
    assert answer["kinds"] == {n: f"torch.int{f.width}" for n, f in formats.items() if isinstance(f, IntFormat)}


def test_autoround_takes_our_layer_config(tmp_path: Path) -> None:
    file, plan = exported(
        "autoround", tmp_path, ("int4-sym-g32", "int8-sym-g32", "int2-sym-g32", "fp16"), "layer_config.json"
    )
    answer = ask("autoround_config", tmp_path / "answer", LLAMA, file)
    config = answer["config"]
    folder = Path(answer["folder"])
    imported = IMPORTERS.load("auto-round").read(folder, inspect(open_model(str(LLAMA)))).formats
    assert IMPORTERS.load("auto-round").recognizes(folder)
    assert imported == plan.formats(), "its own checkpoint is imported as the plan that made it"
    extra = config.get("extra_config", {})
    for name, format in plan.formats().items():
        parsed, own = parse_format(format), extra.get(name.removesuffix(".weight"), {})
        if not isinstance(parsed, IntFormat):
            assert own.get("bits", 16) >= 16 or name.startswith("lm_head")
            continue
        assert own.get("bits", config["bits"]) == parsed.width, (name, json.dumps(own))
