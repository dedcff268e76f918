"""Second moments of inputs against hooks on the module's own layers."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from bitwright.models import inspect, open_model
from sensitivity.base import silent
from sensitivity.data import Data
from sensitivity.input_moments import gather, passes
from sensitivity.input_walk import gather_blocks
from sensitivity.runner import Runner, load_runner
from tests.sensitivity.tiny_models import DATA, Opened


def _rows(runner: Runner, target: str, data: Data) -> torch.Tensor:
    """(tokens, in): what a hook on the module's own layer sees, padding left out."""
    mask = data.inputs.get("attention_mask")
    layer = next(m for n, m in runner.model.named_modules() if n and target.removesuffix(".weight").endswith(n))
    seen: list[torch.Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    with torch.inference_mode():
        runner.output(data)
    handle.remove()
    return torch.cat([x[torch.from_numpy(mask).bool()] if mask is not None else x.flatten(0, -2) for x in seen])


@pytest.mark.parametrize(("name", "module"), [("llama", "down_proj"), ("bert", "output.dense")])
def test_moments_are_the_sums_of_what_a_hook_sees(tiny: dict[str, Opened], name: str, module: str) -> None:
    source, inventory = tiny[name]
    data, runner = DATA[name](), load_runner(source, inventory)
    leaders, moments, _ = gather(runner, data, range(len(inventory.units)), silent)
    target = next(unit.name for unit in inventory.units if module in unit.name)
    rows = _rows(runner, target, data)
    expected = (rows.double().T @ rows.double()).numpy()
    assert np.allclose(moments[leaders[target]], expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_layers_that_read_one_tensor_share_their_moments(tiny: dict[str, Opened]) -> None:
    source, inventory = tiny["llama"]
    leaders, moments, _ = gather(load_runner(source, inventory), DATA["llama"](), range(len(inventory.units)), silent)
    of = {
        role: leaders[f"model.layers.1.{role}.weight"]
        for role in ("self_attn.q_proj", "self_attn.k_proj", "mlp.up_proj")
    }
    assert of["self_attn.q_proj"] == of["self_attn.k_proj"]
    assert of["mlp.up_proj"] not in {of["self_attn.q_proj"], leaders["model.layers.0.mlp.up_proj.weight"]}
    assert len(moments) == len(set(leaders.values())) < len(leaders) == len(inventory.units)


def test_an_expert_has_its_own_tokens_only(tiny: dict[str, Opened]) -> None:
    source, inventory = tiny["mixtral"]
    units = [n for n, unit in enumerate(inventory.units) if unit.layer == 0 and unit.expert is not None]
    data, runner = DATA["mixtral"](), load_runner(source, inventory)
    leaders, moments, _ = gather(runner, data, units, silent)
    traces = {leader: float(np.trace(moments[leader])) for leader in set(leaders.values())}
    gates = [leaders[inventory.units[n].name] for n in units if "w1" in inventory.units[n].name]
    assert len(set(gates)) == len(gates)
    both = [n for n, unit in enumerate(inventory.units) if unit.layer == 0 and "q_proj" in unit.name]
    assert len({round(traces[gate], 6) for gate in gates}) > 1
    assert gather(runner, data, both, silent)[1].keys() == {inventory.units[both[0]].name}


def test_stacked_experts_are_calibrated_as_listed_ones(tiny: dict[str, Opened], tmp_path: Path) -> None:
    """The same mixture stored with its experts in one tensor a role."""
    source, inventory = tiny["mixtral"]
    listed = load_file(source.path / "model.safetensors")
    stored = {name.replace("block_sparse_moe", "mlp"): t for name, t in listed.items() if ".experts." not in name}
    for layer in {unit.layer for unit in inventory.units if unit.expert is not None}:
        experts = f"model.layers.{layer}.block_sparse_moe.experts."
        numbers = range(len({name.split(".")[5] for name in listed if name.startswith(experts)}))
        w1, w2, w3 = ([listed[f"{experts}{n}.w{which}.weight"] for n in numbers] for which in (1, 2, 3))
        ups = [torch.cat(pair) for pair in zip(w1, w3, strict=True)]
        stored[f"model.layers.{layer}.mlp.experts.gate_up_proj"] = torch.stack(ups)
        stored[f"model.layers.{layer}.mlp.experts.down_proj"] = torch.stack(w2)
    save_file(stored, tmp_path / "model.safetensors", metadata={"format": "pt"})
    shutil.copy(source.path / "config.json", tmp_path)
    stacked = open_model(str(tmp_path))
    found = [
        gather(load_runner(*opened), DATA["mixtral"](), range(len(opened[1].units)), silent)
        for opened in ((source, inventory), (stacked, inspect(stacked)))
    ]
    for name in (unit.name for unit in inventory.units if unit.expert is not None):
        expert, role = name.split(".experts.")[1].split(".")[:2]
        start = name.split(".block_sparse_moe")[0] + ".mlp.experts."
        other = f"{start}{'down_proj' if role == 'w2' else 'gate_up_proj'}[{expert}]"
        assert (name in found[0][0]) == (other in found[1][0])
        if name in found[0][0]:
            assert np.allclose(found[0][1][found[0][0][name]], found[1][1][found[1][0][other]], rtol=1e-5)


def test_a_pass_holds_whole_blocks_within_its_limit(tiny: dict[str, Opened], monkeypatch: pytest.MonkeyPatch) -> None:
    _, inventory = tiny["llama"]
    assert sorted(n for group in passes(inventory, 1) for n in group) == list(range(len(inventory.units)))
    assert [{inventory.units[n].layer for n in group} for group in passes(inventory, 1)][:2] == [{0}, {1}]
    assert len(passes(inventory)) == 1
    # A process that may take little more held 1 GiB of moments all the same.
    monkeypatch.setattr("sensitivity.input_moments.free_memory", lambda: 1000.0)
    assert passes(inventory) == passes(inventory, 1)


def test_weights_that_no_linear_uses_have_no_moments(tiny: dict[str, Opened]) -> None:
    """GPT-2's Conv1D keeps its weight as (in, out): x x' runs along rows, and once stood for columns of square ones."""
    source, inventory = tiny["gpt2"]
    leaders, moments, _ = gather(load_runner(source, inventory), DATA["gpt2"](), range(len(inventory.units)), silent)
    assert not any("c_" in name for name in leaders)
    assert moments.keys() <= set(leaders.values())


@pytest.mark.parametrize("name", ["llama", "mixtral", "bert", "vit"])
def test_block_by_block_they_are_those_of_the_model_in_memory(tiny: dict[str, Opened], name: str) -> None:
    source, inventory = tiny[name]
    data = DATA[name]()
    leaders, moments, means = gather(load_runner(source, inventory), data, range(len(inventory.units)), silent)
    blocks = list(gather_blocks(source, inventory, data, silent))
    assert sorted(unit for block in blocks for unit in block.units) == list(range(len(inventory.units)))
    assert {unit: leader for block in blocks for unit, leader in block.leaders.items()} == leaders
    for whole, parts in ((moments, [b.moments for b in blocks]), (means, [b.means for b in blocks])):
        found = {unit: array for part in parts for unit, array in part.items()}
        assert found.keys() == whole.keys()
        for unit, array in found.items():
            assert np.allclose(array, whole[unit], rtol=1e-4, atol=1e-4 * np.abs(whole[unit]).max())


def test_means_are_those_of_the_rows(tiny: dict[str, Opened]) -> None:
    """What a layer of known inputs gets on average: of the moments' own rows, from a hook."""
    source, inventory = tiny["bert"]
    data, runner = DATA["bert"](), load_runner(source, inventory)
    leaders, _, means = gather(runner, data, range(len(inventory.units)), silent)
    target = next(unit.name for unit in inventory.units if "output.dense" in unit.name)
    expected = _rows(runner, target, data).double().mean(dim=0).numpy()
    assert np.allclose(means[leaders[target]], expected, atol=1e-5)
