"""Architectures of the held-out models: none has the shape of a model under tests/models.

Sizes are no powers of two and no multiples of the groups of 64, heads are shared (GQA), heads are tied to embeddings
where the family does so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import transformers


@dataclass(frozen=True)
class Kind:
    """make(vocabulary, context) -> an untrained model; the rest is how it is trained (tokens: batch x context)."""

    make: Callable[[int, int], Any]
    vocabulary: int = 1024
    context: int = 128
    batch: int = 4
    peak: float = 3e-3


def _common(vocabulary: int, context: int) -> dict[str, Any]:
    return {"vocab_size": vocabulary, "max_position_embeddings": context, "bos_token_id": 0, "eos_token_id": 0}


def llama(vocabulary: int, context: int) -> Any:
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            hidden_size=160, intermediate_size=416, num_hidden_layers=5, num_attention_heads=5, num_key_value_heads=1,
            tie_word_embeddings=True, **_common(vocabulary, context),
        )
    )  # fmt: skip


def mixtral(vocabulary: int, context: int) -> Any:
    return transformers.MixtralForCausalLM(
        transformers.MixtralConfig(
            hidden_size=96, intermediate_size=160, num_hidden_layers=3, num_attention_heads=6, num_key_value_heads=3,
            num_local_experts=6, num_experts_per_tok=2, initializer_range=0.06, output_router_logits=True,
            router_aux_loss_coef=0.02, rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
            tie_word_embeddings=False, **_common(vocabulary, context),
        )
    )  # fmt: skip


def _qwen2_moe(vocabulary: int, context: int, experts: int, chosen: int, layers: int, dense: list[int]) -> Any:
    return transformers.Qwen2MoeForCausalLM(
        transformers.Qwen2MoeConfig(
            hidden_size=144, intermediate_size=320, num_hidden_layers=layers, num_attention_heads=6,
            num_key_value_heads=2, moe_intermediate_size=80, shared_expert_intermediate_size=176, num_experts=experts,
            num_experts_per_tok=chosen, mlp_only_layers=dense, initializer_range=0.06, output_router_logits=True,
            router_aux_loss_coef=0.02, tie_word_embeddings=True, **_common(vocabulary, context),
        )
    )  # fmt: skip


def qwen2moe(vocabulary: int, context: int) -> Any:
    """16 experts, four a token, a shared one beside them; the first block is dense; q, k and v have biases."""
    return _qwen2_moe(vocabulary, context, 16, 4, 4, [0])


def top1(vocabulary: int, context: int) -> Any:
    """12 experts, one a token and weighted by its probability as in a Switch Transformer, and a shared one."""
    return _qwen2_moe(vocabulary, context, 12, 1, 3, [])


def gemma2(vocabulary: int, context: int) -> Any:
    """Heads of another width than hidden / heads, four norms a block, sliding windows, capped logits, tied."""
    return transformers.Gemma2ForCausalLM(
        transformers.Gemma2Config(
            hidden_size=176, intermediate_size=432, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,
            head_dim=40, sliding_window=48, query_pre_attn_scalar=40, tie_word_embeddings=True, pad_token_id=0,
            attn_implementation="eager", **_common(vocabulary, context),
        )
    )  # fmt: skip


def gpt2(vocabulary: int, context: int) -> Any:
    """Learned positions, layer norms, biases everywhere, matrices stored as (in, out), tied."""
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=vocabulary, n_positions=context, n_embd=168, n_layer=5, n_head=6, bos_token_id=0, eos_token_id=0,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        )
    )  # fmt: skip


KINDS = {
    "llama": Kind(llama),
    "mixtral": Kind(mixtral),
    "qwen2moe": Kind(qwen2moe, vocabulary=1536, context=160),
    "top1": Kind(top1, vocabulary=800),
    "gemma2": Kind(gemma2, vocabulary=1280, context=144),
    "gpt2": Kind(gpt2, vocabulary=700, context=144),
}
