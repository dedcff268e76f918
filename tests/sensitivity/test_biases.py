"""Corrected biases in the loaded model, block by block, and in checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bitwright.core.errors import Unsupported
from bitwright.core.formats import parse_format
from bitwright.core.inventory import RestTensor
from quantizers.compensation import RTN_BIAS
from quantizers.containers.catalog import CONTAINERS
from quantizers.containers.packed import PackedContainer
from sensitivity.evaluate import measure, measure_checkpoint
from sensitivity.runner import load_runner
from tests.sensitivity.tiny_models import DATA, Opened


class Loud:
    """rtn-bias that is told the same mean inputs for every layer, so large that every output depends on them."""

    name = "rtn-bias"

    def quantize(self, weight: Any, format: Any, *, name: str = "weight", **context: Any) -> Any:
        return RTN_BIAS.quantize(weight, format, name=name)

    def bias_shift(self, weight: Any, value: Any, *, name: str = "weight", **context: Any) -> Any:
        return RTN_BIAS.bias_shift(weight, value, name=name, **told(weight.shape[1]))


def told(inputs: int) -> dict[str, Any]:
    mean = np.linspace(0.5, 2, inputs)
    return {"mean": mean, "held_out_mean": mean}


@pytest.mark.parametrize("name", ["bert", "vit"])
def test_a_moved_bias_is_measured_in_memory_block_by_block_and_from_a_checkpoint(
    tiny: dict[str, Opened], name: str, tmp_path: Path
) -> None:
    source, inventory = tiny[name]
    data, formats = DATA[name](), ["int2-g16"] * len(inventory.units)
    assert all(inventory.bias_of(unit) is not None for unit in inventory.units if unit.layer is not None)
    variants = {"moved": formats, "original": None, "again": formats}
    whole = measure(source, inventory, variants, data, quantizer=Loud())
    plain = measure(source, inventory, {"plain": formats}, data)["plain"]
    assert whole["moved"].kl != pytest.approx(plain.kl, rel=0.01)
    assert whole["original"].kl == pytest.approx(0, abs=1e-9)
    assert whole["again"] == whole["moved"]
    streamed = measure(source, inventory, variants, data, quantizer=Loud(), stream=True)
    for key, quality in whole.items():
        assert streamed[key].kl == pytest.approx(quality.kl, rel=1e-4, abs=1e-9)
    CONTAINERS.load("packed").write(
        source, inventory, [parse_format(f) for f in formats], tmp_path / "out", quantizer="rtn-bias",
        context=lambda unit: {"hessian": np.eye(unit.shape[1]), **told(unit.shape[1])},
    )  # fmt: skip
    assert measure_checkpoint(source, inventory, tmp_path / "out", data).kl == pytest.approx(
        whole["moved"].kl, rel=1e-6
    )


def test_a_replaced_bias_is_put_back(tiny: dict[str, Opened]) -> None:
    source, inventory = tiny["vit"]
    runner, unit = load_runner(source, inventory), inventory.units[-1]
    place = runner.slices[unit.name]
    bias = place.bias_view(runner.parameters)
    before = bias.clone()
    changed = np.zeros(unit.shape, np.float32), np.arange(unit.shape[0], dtype=np.float32)
    with torch.inference_mode(), runner.replaced({unit.name: changed}):
        assert torch.equal(bias, torch.from_numpy(changed[1]))
    assert torch.equal(bias, before)


def test_a_layer_without_a_bias_is_left_alone_and_cannot_be_given_one(tiny: dict[str, Opened]) -> None:
    source, inventory = tiny["llama"]
    assert all(inventory.bias_of(unit) is None for unit in inventory.units)
    data, formats = DATA["llama"](), ["int2-g16"] * len(inventory.units)
    moved = measure(source, inventory, {"plan": formats}, data, quantizer=Loud())["plan"]
    assert moved == measure(source, inventory, {"plan": formats}, data)["plan"]
    unit, runner = inventory.units[0], load_runner(source, inventory)
    changed = np.zeros(unit.shape, np.float32), np.zeros(unit.shape[0], np.float32)
    with pytest.raises(Unsupported, match="bias"), runner.replaced({unit.name: changed}):
        pass


class WithoutBiases(PackedContainer):
    """A layout that has no place for biases."""

    def rest_tensors(self, tensor: RestTensor) -> Any:
        return () if tensor.name.endswith("query.bias") else super().rest_tensors(tensor)


def test_a_container_that_leaves_a_bias_out_is_refused(tiny: dict[str, Opened], tmp_path: Path) -> None:
    source, inventory = tiny["bert"]
    formats = [parse_format("int2-g16")] * len(inventory.units)
    container = WithoutBiases()
    with pytest.raises(Unsupported, match="leaves out"):
        container.write(
            source, inventory, formats, tmp_path / "out", quantizer="rtn-bias",
            context=lambda unit: {"hessian": np.eye(unit.shape[1]), **told(unit.shape[1])},
        )  # fmt: skip
    assert not (tmp_path / "out").exists()
    container.write(source, inventory, formats, tmp_path / "out")
