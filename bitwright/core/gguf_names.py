"""Names of Hugging Face tensors in GGUF files, and back. One table a family; `{n}` is the block, `{e}` the expert.

Names: the tensor name maps of the `gguf` package (0.19), as facts. Experts of a block are one stacked tensor a role
there; a stacked gate_up_proj here is two tensors there, its first half of rows being the gate.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

#: `model_type` of config.json -> architecture of the GGUF file, and the families of names that it uses.
ARCHITECTURES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "llama": ("llama", ("decoder",)),
    "mistral": ("llama", ("decoder",)),
    "mixtral": ("llama", ("decoder", "mixtral")),
    "qwen2": ("qwen2", ("decoder",)),
    "qwen3": ("qwen3", ("decoder",)),
    "qwen2_moe": ("qwen2moe", ("decoder", "qwen-moe")),
    "qwen3_moe": ("qwen3moe", ("decoder", "qwen-moe")),
    "bert": ("bert", ("bert",)),
}

_L, _B = "model.layers.{n}.", "blk.{n}."
_E, _S = "encoder.layer.{n}.", "shared_expert."
_ATTENTION = {"q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output"}
_MLP = {"gate_proj": "ffn_gate", "up_proj": "ffn_up", "down_proj": "ffn_down"}
_MIXTRAL = {"w1": "ffn_gate", "w3": "ffn_up", "w2": "ffn_down"}

_TABLES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "decoder": (
        ("model.embed_tokens.weight", "token_embd.weight"),
        ("model.norm.weight", "output_norm.weight"),
        ("lm_head.weight", "output.weight"),
        (_L + "input_layernorm.weight", _B + "attn_norm.weight"),
        (_L + "post_attention_layernorm.weight", _B + "ffn_norm.weight"),
        *((f"{_L}self_attn.{hf}.{p}", f"{_B}{gg}.{p}") for hf, gg in _ATTENTION.items() for p in ("weight", "bias")),
        (_L + "self_attn.q_norm.weight", _B + "attn_q_norm.weight"),
        (_L + "self_attn.k_norm.weight", _B + "attn_k_norm.weight"),
        *((f"{_L}mlp.{hf}.{p}", f"{_B}{gg}.{p}") for hf, gg in _MLP.items() for p in ("weight", "bias")),
    ),
    "mixtral": (
        (_L + "block_sparse_moe.gate.weight", _B + "ffn_gate_inp.weight"),
        *((f"{_L}block_sparse_moe.experts.{{e}}.{hf}.weight", f"{_B}{gg}_exps.weight") for hf, gg in _MIXTRAL.items()),
    ),
    "qwen-moe": (
        (_L + "mlp.gate.weight", _B + "ffn_gate_inp.weight"),
        *((f"{_L}mlp.experts.{{e}}.{hf}.weight", f"{_B}{gg}_exps.weight") for hf, gg in _MLP.items()),
        *((f"{_L}mlp.{_S}{hf}.weight", f"{_B}{gg}_shexp.weight") for hf, gg in _MLP.items()),
        (_L + "mlp.shared_expert_gate.weight", _B + "ffn_gate_inp_shexp.weight"),
    ),
    "bert": (
        ("embeddings.word_embeddings.weight", "token_embd.weight"),
        ("embeddings.token_type_embeddings.weight", "token_types.weight"),
        ("embeddings.position_embeddings.weight", "position_embd.weight"),
        *((f"embeddings.LayerNorm.{p}", f"token_embd_norm.{p}") for p in ("weight", "bias")),
        *(
            (f"{_E}{hf}.{p}", f"{_B}{gg}.{p}")
            for hf, gg in (
                ("attention.self.query", "attn_q"),
                ("attention.self.key", "attn_k"),
                ("attention.self.value", "attn_v"),
                ("attention.output.dense", "attn_output"),
                ("attention.output.LayerNorm", "attn_output_norm"),
                ("intermediate.dense", "ffn_up"),
                ("output.dense", "ffn_down"),
                ("output.LayerNorm", "layer_output_norm"),
            )
            for p in ("weight", "bias")
        ),
    ),
}

_STACKED = re.compile(
    r"(?P<block>(?:model\.)?layers\.(?P<n>[0-9]+)\.)[a-z_]+\.experts\.(?P<role>[a-z_0-9]+?)(?:\.weight)?"
)
_STACKED_ROLES = {
    "gate_up_proj": ("ffn_gate_exps", "ffn_up_exps"), "gate_proj": ("ffn_gate_exps",), "up_proj": ("ffn_up_exps",),
    "down_proj": ("ffn_down_exps",), "w1": ("ffn_gate_exps",), "w3": ("ffn_up_exps",), "w2": ("ffn_down_exps",),
}  # fmt: skip


@dataclass(frozen=True)
class GgufPlace:
    """Where (a part of) a tensor lies: name in the file; expert: index in its stack; half: (which, of) of our rows."""

    name: str
    expert: int | None = None
    half: tuple[int, int] = (0, 1)


@cache
def _patterns() -> tuple[tuple[re.Pattern[str], str], ...]:
    """Any family's table; prefixes that checkpoints leave out or add (`model.`, `bert.`) are optional."""
    found = []
    for rows in _TABLES.values():
        for hf, gguf in rows:
            text = re.escape(hf).replace(r"\{n\}", "(?P<n>[0-9]+)").replace(r"\{e\}", "(?P<e>[0-9]+)")
            text = text.removeprefix(r"model\.")
            prefix = r"(?:model\.|bert\.)?" if hf != "lm_head.weight" else ""
            found.append((re.compile(prefix + text), gguf))
    return tuple(found)


def gguf_places(tensor: str, index: int | None = None) -> tuple[GgufPlace, ...]:
    """Where a tensor (or matrix `index` of a stacked one) lies in a GGUF file; empty when llama.cpp has no name."""
    if index is not None:
        match = _STACKED.fullmatch(tensor)
        roles = _STACKED_ROLES.get(match["role"], ()) if match else ()
        return tuple(
            GgufPlace(f"blk.{match['n']}.{role}.weight", index, (i, len(roles)))
            for i, role in enumerate(roles)
            if match
        )
    for pattern, gguf in _patterns():
        found = pattern.fullmatch(tensor)
        if found is not None:
            groups = found.groupdict()
            expert = groups.get("e")
            return (GgufPlace(gguf.format(n=groups.get("n")), None if expert is None else int(expert)),)
    return ()


def hugging_face_names(model_type: str) -> Mapping[str, str]:
    """GGUF name template -> Hugging Face name template, for one `model_type`. Raises KeyError."""
    families = ARCHITECTURES[model_type][1]
    return {gguf: hf for family in families for hf, gguf in _TABLES[family]}
