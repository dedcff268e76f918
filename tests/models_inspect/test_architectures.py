"""Every architecture's layout: units, roles, families, exact bytes, and nothing lost."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from bitwright.core.inventory import DTYPE_BYTES, Inventory
from bitwright.models import inspect, open_model
from tests.models_inspect.checkpoints import EXPERTS, HIDDEN, INNER, KV, LAYOUTS, VOCABULARY, Layout, decoder, write


def load(folder: Path, layout: Layout, **options: int) -> Inventory:
    return inspect(open_model(str(write(folder, layout, **options))))


@pytest.fixture
def one(tmp_path: Path, request: pytest.FixtureRequest) -> Inventory:
    return load(tmp_path, LAYOUTS[request.param])


@pytest.mark.parametrize("name", LAYOUTS)
def test_units_rest_and_header_add_up_to_the_file(name: str, tmp_path: Path) -> None:
    source = open_model(str(write(tmp_path, LAYOUTS[name])))
    inventory = inspect(source)
    file = tmp_path / "model.safetensors"
    assert (
        inventory.unit_stored_bytes + inventory.rest_bytes + source.header_bytes
        == file.stat().st_size
        == source.file_bytes
    )
    shapes = LAYOUTS[name][1]
    planned = {unit.tensor for unit in inventory.units}
    assert planned | {tensor.name for tensor in inventory.rest} == set(shapes)
    assert not planned & {tensor.name for tensor in inventory.rest}
    assert len({unit.name for unit in inventory.units}) == len(inventory.units)


@pytest.mark.parametrize("name", LAYOUTS)
def test_sharding_changes_nothing_but_the_digest(name: str, tmp_path: Path) -> None:
    whole = load(tmp_path / "whole", LAYOUTS[name])
    parts = load(tmp_path / "parts", LAYOUTS[name], shards=3)
    assert parts.units == whole.units
    assert sorted(parts.rest, key=str) == sorted(whole.rest, key=str)
    assert parts.digest != whole.digest


@pytest.mark.parametrize("name", LAYOUTS)
def test_inventory_survives_json(name: str, tmp_path: Path) -> None:
    inventory = load(tmp_path, LAYOUTS[name])
    again = Inventory.from_json(inventory.to_json())
    assert again == inventory
    coverage = inventory.coverage()
    assert coverage["planned_bytes"] + sum(row["bytes"] for row in coverage["unquantized"]) == coverage["stored_bytes"]


def bytes_of(layout: Layout, part: str) -> int:
    """Oracle: bytes of the tensors whose name holds `part`, from the layout itself."""
    return sum(DTYPE_BYTES[dtype] * math.prod(shape) for name, (dtype, shape) in layout[1].items() if part in name)


def role_bytes(inventory: Inventory) -> dict[str, int]:
    return {row["role"]: row["bytes"] for row in inventory.coverage()["unquantized"]}


@pytest.mark.parametrize("one", ["llama-gqa"], indirect=True)
def test_llama_with_grouped_queries(one: Inventory) -> None:
    assert (one.task, one.layers, one.architecture, one.warnings) == ("causal-lm", 2, "LlamaForCausalLM", ())
    assert [unit.module for unit in one.units[:7]] == [
        "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
        "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
    ]  # fmt: skip
    assert one.units[-1].module == "lm_head"
    assert one.units[-1].layer is None
    assert one.units[1].shape == (KV * 16, HIDDEN)
    assert role_bytes(one) == {
        "embedding": bytes_of(LAYOUTS["llama-gqa"], "embed_tokens"),
        "norm": bytes_of(LAYOUTS["llama-gqa"], "norm"),
    }
    ties = one.tie_ids(["qkv", "gate_up"])
    assert ties[:7] == (0, 0, 0, 3, 4, 4, 6)
    assert ties[7] == 7


@pytest.mark.parametrize("one", ["llama-tied"], indirect=True)
def test_tied_head_that_is_absent_is_no_unit(one: Inventory) -> None:
    assert {unit.module for unit in one.units}.isdisjoint({"lm_head"})


def test_tied_head_that_is_stored_all_the_same_stays(tmp_path: Path) -> None:
    config, shapes = decoder("llama", "LlamaForCausalLM", tied=False)
    inventory = load(tmp_path, ({**config, "tie_word_embeddings": True}, shapes))
    assert role_bytes(inventory)["tied_head"] == 2 * VOCABULARY * HIDDEN


@pytest.mark.parametrize("one", ["qwen2-biases"], indirect=True)
def test_qwen2_biases_stay(one: Inventory) -> None:
    assert role_bytes(one)["bias"] == bytes_of(LAYOUTS["qwen2-biases"], ".bias")


@pytest.mark.parametrize("one", ["qwen3-norms"], indirect=True)
def test_qwen3_query_and_key_norms_stay(one: Inventory) -> None:
    assert role_bytes(one)["norm"] == bytes_of(LAYOUTS["qwen3-norms"], "norm")


@pytest.mark.parametrize("one", ["mixtral-listed", "qwen3-moe-listed"], indirect=True)
def test_listed_experts(one: Inventory) -> None:
    experts = [unit for unit in one.units if unit.expert is not None]
    assert len(experts) == 2 * EXPERTS * 3
    assert {unit.index for unit in experts} == {None}
    assert role_bytes(one)["router"] == 2 * 2 * EXPERTS * HIDDEN
    assert [unit.expert for unit in experts[:6]] == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("one", ["mixtral-stacked", "qwen3-moe-stacked"], indirect=True)
def test_stacked_experts_are_one_unit_a_matrix(one: Inventory) -> None:
    experts = [unit for unit in one.units if unit.expert is not None]
    assert len(experts) == 2 * EXPERTS * 2
    first, second = experts[0], experts[1]
    assert first.name == "model.layers.0.mlp.experts.gate_up_proj[0]"
    assert (first.tensor, first.index, first.shape) == (
        "model.layers.0.mlp.experts.gate_up_proj",
        0,
        (2 * INNER, HIDDEN),
    )
    assert (second.module, second.shape) == ("mlp.experts.down_proj", (HIDDEN, INNER))


@pytest.mark.parametrize(
    "one", ["mixtral-listed", "mixtral-stacked", "qwen3-moe-listed", "qwen3-moe-stacked"], indirect=True
)
def test_expert_families(one: Inventory) -> None:
    experts = [i for i, unit in enumerate(one.units) if unit.expert is not None]
    roles = len({one.units[i].module for i in experts})

    def groups(kind: str) -> int:
        ids = one.tie_ids([kind])
        return len({ids[i] for i in experts})

    assert groups("experts") == 2
    assert groups("expert") == 2 * EXPERTS
    assert groups("expert_role") == 2 * roles
    dense = [i for i in range(len(one.units)) if i not in experts]
    assert len({one.tie_ids(["experts"])[i] for i in dense}) == len(dense)


@pytest.mark.parametrize("one", ["bert"], indirect=True)
def test_bert_pooler_is_not_on_the_path_of_an_embedding(one: Inventory) -> None:
    assert (one.task, one.layers, len(one.units), one.warnings) == ("embedding", 2, 12, ())
    pooler = next(tensor for tensor in one.rest if tensor.name == "pooler.dense.weight")
    assert (pooler.role, pooler.reason) == ("pooler", "not on the path of the mean-pooled output")
    assert role_bytes(one)["index"] == 8 * 32
    assert one.tie_ids(["qkv"])[:4] == (0, 0, 0, 3)


@pytest.mark.parametrize("one", ["bert-classifier"], indirect=True)
def test_bert_classifier_plans_pooler_and_head(one: Inventory) -> None:
    assert one.task == "text-classification"
    assert [unit.module for unit in one.units[-2:]] == ["pooler.dense", "classifier"]


@pytest.mark.parametrize("one", ["vit"], indirect=True)
def test_vit_convolution_stays_and_head_is_planned(one: Inventory) -> None:
    assert (one.task, one.units[-1].module, one.warnings) == ("image-classification", "classifier", ())
    roles = role_bytes(one)
    assert roles["patch_embedding"] == 2 * HIDDEN * 3 * 4 * 4
    assert roles["position_embedding"] == 2 * 17 * HIDDEN
    assert roles["token"] == 2 * HIDDEN


@pytest.mark.parametrize("one", ["unknown"], indirect=True)
def test_unknown_architecture_is_planned_as_plain_linears_and_says_so(one: Inventory) -> None:
    assert [unit.name for unit in one.units] == ["foo.blocks.0.attn.weight", "foo.blocks.1.attn.weight", "out.weight"]
    assert [unit.layer for unit in one.units] == [0, 1, None]
    assert all(unit.families == {} for unit in one.units)
    assert "'foo' has no table" in one.warnings[0]
    assert "plain linear" in one.warnings[0]
    assert "2 tensors" in one.warnings[1]
    assert {t.name: t.role for t in one.rest}["foo.wte.weight"] == "embedding"


@pytest.mark.parametrize("one", ["unknown-experts"], indirect=True)
def test_listed_experts_of_an_architecture_without_a_table_are_known_as_experts(one: Inventory) -> None:
    """They were plain linears of a role each: no stand-ins by role, and pair terms as for a dense model."""
    experts = [unit for unit in one.units if unit.expert is not None]
    assert len(experts) == 2 * EXPERTS * 3
    assert {unit.module for unit in experts} == {f"feed_forward.experts.{role}_proj" for role in ("gate", "up", "down")}
    ids = one.tie_ids(["experts"])
    assert len({ids[i] for i, unit in enumerate(one.units) if unit.expert is not None}) == 2
    assert all(unit.families == {} for unit in one.units if unit.expert is None)
    assert "'foo_moe' has no table" in one.warnings[0]


def test_layers_sort_by_number_not_by_text(tmp_path: Path) -> None:
    inventory = load(tmp_path, decoder("llama", "LlamaForCausalLM", layers=12))
    assert [unit.layer for unit in inventory.units[:-1]] == [layer for layer in range(12) for _ in range(7)]


def test_layer_count_that_disagrees_with_the_config_is_said(tmp_path: Path) -> None:
    config, shapes = decoder("llama", "LlamaForCausalLM")
    inventory = load(tmp_path, ({**config, "num_hidden_layers": 5}, shapes))
    assert inventory.warnings == ("config.json says 5 layers; the weight files hold units of 2",)


def test_unrecognized_matrix_of_a_known_architecture_stays_and_is_said(tmp_path: Path) -> None:
    config, shapes = decoder("llama", "LlamaForCausalLM")
    inventory = load(tmp_path, (config, {**shapes, "model.adapter.weight": ("BF16", (8, 8))}))
    assert {t.name: t.role for t in inventory.rest}["model.adapter.weight"] == "unrecognized"
    assert "model.adapter.weight" in inventory.warnings[0]


def test_packed_weights_are_not_planned_again(tmp_path: Path) -> None:
    config, shapes = decoder("llama", "LlamaForCausalLM")
    packed = {name: ("I32" if "mlp" in name else dtype, shape) for name, (dtype, shape) in shapes.items()}
    inventory = load(tmp_path, ({**config, "quantization_config": {"bits": 4}}, packed))
    assert all("mlp" not in unit.name for unit in inventory.units)
    assert any("already quantized" in warning for warning in inventory.warnings)


def test_transposed_experts_are_said(tmp_path: Path) -> None:
    config, shapes = LAYOUTS["mixtral-stacked"]
    turned = {
        name: (dtype, (shape[0], shape[2], shape[1]) if len(shape) == 3 else shape)
        for name, (dtype, shape) in shapes.items()
    }
    inventory = load(tmp_path, (config, turned))
    assert any("its rows may be inputs" in warning for warning in inventory.warnings)


def test_empty_matrix_stays(tmp_path: Path) -> None:
    config, shapes = decoder("llama", "LlamaForCausalLM")
    shapes = {**shapes, "model.layers.0.mlp.up_proj.weight": ("BF16", (0, HIDDEN))}
    assert {t.name: t.role for t in load(tmp_path, (config, shapes)).rest}[
        "model.layers.0.mlp.up_proj.weight"
    ] == "empty"
