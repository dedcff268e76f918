"""Units are found in the loaded module wherever transformers put them, and nowhere else."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bitwright.core.errors import InvalidModel
from sensitivity.deltas import unit_weight
from sensitivity.runner import load_runner
from sensitivity.units_map import map_units
from tests.sensitivity.tiny_models import BUILDERS, Opened


@pytest.mark.parametrize("name", list(BUILDERS))
def test_every_unit_is_found_with_its_values(tiny: dict[str, Opened], name: str) -> None:
    source, inventory = tiny[name]
    runner = load_runner(source, inventory)
    parameters = runner.parameters
    for unit in inventory.units:
        view = runner.slices[unit.name].view(parameters)
        assert np.array_equal(view.numpy(), unit_weight(source, unit))
    assert len(set(runner.slices.values())) == len(inventory.units)


def test_stacked_experts_are_slices(tiny: dict[str, Opened]) -> None:
    runner = load_runner(*tiny["mixtral"])
    place = runner.slices["model.layers.1.block_sparse_moe.experts.3.w3.weight"]
    assert (place.parameter.endswith("gate_up_proj"), place.index, place.start, place.stop) == (True, 3, 48, 96)


def test_equal_experts_get_different_places() -> None:
    """Experts with the same values (dead ones are often all zero) must not be written on top of each other."""

    class Stack(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.experts = torch.nn.Parameter(torch.zeros(3, 4, 5))

    class Source:
        def info(self, name: str) -> SimpleNamespace:
            return SimpleNamespace(dtype="F32")

        def read_float32(self, name: str, index: int | None = None) -> np.ndarray:
            return np.zeros((4, 5), np.float32)

    class Unit:
        index = None
        shape = (4, 5)

        def __init__(self, name: str) -> None:
            self.name = self.tensor = name

    class Inventory:
        units = tuple(Unit(f"e{i}") for i in range(3))

    found = map_units(Source(), Inventory(), dict(Stack().named_parameters()))
    assert sorted(place.index for place in found.values()) == [0, 1, 2]


def test_a_unit_of_another_model_is_refused(tiny: dict[str, Opened]) -> None:
    source, inventory = tiny["llama"]
    model = load_runner(source, inventory).model
    other = tiny["bert"]
    with pytest.raises(InvalidModel, match="nowhere"):
        map_units(other[0], replace(other[1], units=other[1].units[:1]), dict(model.named_parameters()))


def test_replaced_weights_come_back_even_after_an_error(tiny: dict[str, Opened]) -> None:
    source, inventory = tiny["mixtral"]
    runner = load_runner(source, inventory)
    before = {name: p.clone() for name, p in runner.parameters.items()}
    changed = {unit.name: np.full(unit.shape, 2.0, np.float32) for unit in inventory.units}
    with runner.replaced(changed):
        for unit in inventory.units:
            assert float(runner.slices[unit.name].view(runner.parameters).mean()) == 2.0
    assert all(torch.equal(before[name], p) for name, p in runner.parameters.items())
    with pytest.raises(KeyError), runner.replaced(changed):
        raise KeyError
    assert all(torch.equal(before[name], p) for name, p in runner.parameters.items())


@pytest.mark.parametrize("name", ["llama", "mixtral", "vit", "bert", "opt", "deepseek", "gpt-neox"])
def test_known_architectures_need_no_guess(tiny: dict[str, Opened], name: str) -> None:
    assert tiny[name][1].warnings == ()
    assert not {t.role for t in tiny[name][1].rest} & {"other", "unknown"}
