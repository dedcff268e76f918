"""Tiny random models of several architectures, written once a session in Hugging Face layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.numpy import load_file, save_file

from bitwright.core.inventory import Inventory
from bitwright.models import ModelSource, inspect, open_model
from sensitivity.data import Calibration, Data

VOCABULARY = 50
Opened = tuple[ModelSource, Inventory]


def _llama() -> transformers.PreTrainedModel:
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=False,
        )
    )  # fmt: skip


def _mixtral() -> transformers.PreTrainedModel:
    return transformers.MixtralForCausalLM(
        transformers.MixtralConfig(
            vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, num_local_experts=4, num_experts_per_tok=2, max_position_embeddings=64,
        )
    )  # fmt: skip


def _gpt2() -> transformers.PreTrainedModel:
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=2, n_positions=64)
    )


def _vit() -> transformers.PreTrainedModel:
    return transformers.ViTForImageClassification(
        transformers.ViTConfig(
            image_size=8, patch_size=4, num_channels=1, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=48, num_labels=5,
        )
    )  # fmt: skip


def _bert() -> transformers.PreTrainedModel:
    return transformers.BertModel(
        transformers.BertConfig(
            vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48,
            max_position_embeddings=64,
        )
    )  # fmt: skip


def _opt() -> transformers.PreTrainedModel:
    """Its MLP sees the items of a batch as one list of positions."""
    return transformers.OPTForCausalLM(
        transformers.OPTConfig(
            vocab_size=VOCABULARY, hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=2,
            word_embed_proj_dim=32, max_position_embeddings=64,
        )
    )  # fmt: skip


def _deepseek() -> transformers.PreTrainedModel:
    """Latent attention, a dense first block, a shared expert."""
    return transformers.DeepseekV3ForCausalLM(
        transformers.DeepseekV3Config(
            vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, moe_intermediate_size=16, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=2, n_routed_experts=4, num_experts_per_tok=2, n_group=1,
            topk_group=1, kv_lora_rank=16, q_lora_rank=24, qk_rope_head_dim=8, qk_nope_head_dim=8, v_head_dim=16,
            first_k_dense_replace=1, max_position_embeddings=64,
        )
    )  # fmt: skip


def _gpt_neox() -> transformers.PreTrainedModel:
    return transformers.GPTNeoXForCausalLM(
        transformers.GPTNeoXConfig(
            vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
            max_position_embeddings=64,
        )
    )  # fmt: skip


def _qwen2_moe() -> transformers.PreTrainedModel:
    """A shared expert with a gate of its own beside the routed ones."""
    return transformers.Qwen2MoeForCausalLM(
        transformers.Qwen2MoeConfig(
            vocab_size=VOCABULARY, hidden_size=48, intermediate_size=64, moe_intermediate_size=32,
            shared_expert_intermediate_size=48, num_hidden_layers=2, num_attention_heads=3, num_key_value_heads=1,
            num_experts=4, num_experts_per_tok=2, max_position_embeddings=64, tie_word_embeddings=True,
        )
    )  # fmt: skip


BUILDERS = {
    "llama": _llama, "mixtral": _mixtral, "gpt2": _gpt2, "vit": _vit, "bert": _bert, "opt": _opt,
    "deepseek": _deepseek, "gpt-neox": _gpt_neox, "qwen2-moe": _qwen2_moe,
}  # fmt: skip


def save_model(name: str, folder: Path) -> Path:
    """Random weights, a few times the usual size, so that outputs are far from uniform."""
    torch.manual_seed(7)
    model = BUILDERS[name]()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4.0)
    model.half().save_pretrained(folder)
    return folder


def token_data(items: int, length: int, seed: int = 0) -> Data:
    ids = np.random.default_rng(seed).integers(0, VOCABULARY, (items, length))
    return Data("tokens", {"input_ids": ids})


def sentence_data(items: int, length: int) -> Data:
    rng = np.random.default_rng(1)
    sizes = rng.integers(2, length + 1, items)
    mask = (np.arange(length) < sizes[:, None]).astype(np.int64)
    return Data("sentences", {"input_ids": rng.integers(1, VOCABULARY, (items, length)) * mask, "attention_mask": mask})


def image_data(items: int) -> Data:
    rng = np.random.default_rng(2)
    pixels = rng.standard_normal((items, 1, 8, 8)).astype(np.float32)
    return Data("images", {"pixel_values": pixels}, rng.integers(0, 5, items))


DATA = {
    "llama": lambda: token_data(3, 9), "mixtral": lambda: token_data(2, 7), "gpt2": lambda: token_data(2, 6),
    "opt": lambda: token_data(3, 6), "deepseek": lambda: token_data(2, 7), "qwen2-moe": lambda: token_data(2, 7),
    "gpt-neox": lambda: token_data(3, 6),
    "vit": lambda: image_data(6), "bert": lambda: sentence_data(5, 8),
}  # fmt: skip


def calibrated(data: Data) -> Calibration:
    return Calibration(data.kind, data, data, data.digest, "test data")


def changed(folder: Path, name: str, value: float) -> Opened:
    """The tiny llama with every number of one tensor replaced."""
    save_model("llama", folder)
    tensors = load_file(folder / "model.safetensors")
    tensors[name] = np.full_like(tensors[name], value)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    source = open_model(str(folder))
    return source, inspect(source)
