"""transformers as oracle: what it saves is what our tables know, and the names we export are names it has in memory."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from bitwright.core.inventory import Inventory
from bitwright.engines import EXPORTERS
from bitwright.models import inspect, open_model
from tests.engines.plans import plan_of

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SIZES: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 128, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip
MOE = {**SIZES, "num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
IMAGE = {"image_size": 16, "patch_size": 4, "num_labels": 10}
MODELS: dict[str, tuple[str, str, dict[str, Any], str, int]] = {
    "llama": ("LlamaConfig", "LlamaForCausalLM", SIZES, "causal-lm", 15),
    "mistral": ("MistralConfig", "MistralForCausalLM", SIZES, "causal-lm", 15),
    "qwen2": ("Qwen2Config", "Qwen2ForCausalLM", {**SIZES, "tie_word_embeddings": True}, "causal-lm", 14),
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM", {**SIZES, "head_dim": 16}, "causal-lm", 15),
    "mixtral": ("MixtralConfig", "MixtralForCausalLM", MOE, "causal-lm", 33),
    "qwen3-moe": ("Qwen3MoeConfig", "Qwen3MoeForCausalLM", {**MOE, "head_dim": 16}, "causal-lm", 33),
    "gemma3": ("Gemma3TextConfig", "Gemma3ForCausalLM", {**SIZES, "head_dim": 16}, "causal-lm", 14),
    "olmo2": ("Olmo2Config", "Olmo2ForCausalLM", SIZES, "causal-lm", 15),
    "nemotron": ("NemotronConfig", "NemotronForCausalLM", SIZES, "causal-lm", 13),
    "glm4": ("Glm4Config", "Glm4ForCausalLM", {**SIZES, "head_dim": 16}, "causal-lm", 13),
    "glm4-moe": (
        "Glm4MoeConfig",
        "Glm4MoeForCausalLM",
        {**MOE, "n_routed_experts": 4, "first_k_dense_replace": 1},
        "causal-lm",
        8 + 3 + 3 * 4 + 3 + 1,
    ),
    "phimoe": ("PhimoeConfig", "PhimoeForCausalLM", MOE, "causal-lm", 33),
    "bert": ("BertConfig", "BertModel", SIZES, "embedding", 12),
    "bert-classifier": ("BertConfig", "BertForSequenceClassification", SIZES, "text-classification", 14),
    "vit": ("ViTConfig", "ViTForImageClassification", {**SIZES, **IMAGE}, "image-classification", 13),
}


@pytest.fixture(scope="module", params=MODELS)
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any, Path]:
    """(name, the model in memory, the folder where transformers saved it)."""
    config_class, model_class, sizes, _, _ = MODELS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    config = getattr(transformers, config_class)(**sizes)
    model = getattr(transformers, model_class)(config).to(torch.bfloat16)
    model.save_pretrained(folder)
    return request.param, model, folder


def test_what_transformers_saves_is_known(saved: tuple[str, Any, Path]) -> None:
    name, _, folder = saved
    source = open_model(str(folder))
    inventory = inspect(source)
    _, _, _, task, units = MODELS[name]
    assert (inventory.task, len(inventory.units), inventory.warnings) == (task, units, ())
    assert inventory.layers == 2
    assert inventory.unit_stored_bytes + inventory.rest_bytes + source.header_bytes == source.file_bytes


def test_every_weight_reads_as_the_library_reads_it(saved: tuple[str, Any, Path]) -> None:
    from safetensors.torch import load_file

    _, _, folder = saved
    source = open_model(str(folder))
    for name, tensor in load_file(folder / "model.safetensors").items():
        ours = torch.from_numpy(source.read_float32(name))
        assert torch.equal(ours, tensor.to(torch.float32)), name


def test_exported_names_are_names_in_memory(saved: tuple[str, Any, Path]) -> None:
    _, model, folder = saved
    inventory: Inventory = inspect(open_model(str(folder)))
    plan = plan_of(inventory, ["int4-sym-g32"])
    modules = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    parameters = {name for name, _ in model.named_parameters()}
    text = EXPORTERS.load("torchao")(plan)
    for name in re.findall(r"^    \('([^']+)'", text, re.MULTILINE):
        assert name in modules | parameters
    config = json.loads(EXPORTERS.load("compressed-tensors")(plan))
    targets = [target for group in config["config_groups"].values() for target in group["targets"]]
    for target in targets:
        assert target in modules or target.startswith("re:"), target
    planned = sum(not target.startswith("re:") for target in targets)
    assert planned == sum(1 for unit in inventory.units if unit.expert is None)
