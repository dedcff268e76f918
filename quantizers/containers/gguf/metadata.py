"""Metadata of a GGUF file from config.json: the keys that llama.cpp reads for each architecture it loads.

What llama.cpp would compute otherwise than the model, without a word, is refused here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bitwright.core.errors import InvalidModel, Unsupported
from bitwright.core.gguf_names import ARCHITECTURES
from bitwright.models.rope import BETA_FAST, BETA_SLOW, positive, rope_parameters, yarn_attention
from quantizers.containers.gguf.layout import Value

_ROPE = {"default": None, "linear": "linear", "yarn": "yarn", "llama3": None, "longrope": None}


def architecture_of(model_type: str) -> str:
    """The GGUF architecture. Raises Unsupported for a model that llama.cpp has no name map for here."""
    if model_type not in ARCHITECTURES:
        raise Unsupported(
            "the gguf container does not know this architecture",
            expected=", ".join(ARCHITECTURES), got=repr(model_type)[:80], hint="use the packed container",
        )  # fmt: skip
    return ARCHITECTURES[model_type][0]


def heads(config: Mapping[str, Any]) -> tuple[int, int]:
    """(query heads, key and value heads)."""
    queries = _count(config, "num_attention_heads")
    return queries, int(config.get("num_key_value_heads") or queries)


def model_metadata(config: Mapping[str, Any], model_type: str, name: str) -> dict[str, Value]:
    """Keys `general.*` and `{architecture}.*`. Raises InvalidModel, Unsupported."""
    arch = architecture_of(model_type)
    _refuse_differences(config, model_type)
    queries, keys = heads(config)
    hidden = _count(config, "hidden_size")
    size = int(config.get("head_dim") or hidden // queries)
    found: dict[str, Value] = {
        "general.architecture": Value("string", arch),
        "general.type": Value("string", "model"),
        "general.name": Value("string", name),
        "general.quantized_by": Value("string", "bitwright"),
        "general.quantization_version": Value("u32", 2),
        "general.alignment": Value("u32", 32),
        f"{arch}.vocab_size": Value("u32", _count(config, "vocab_size")),
        f"{arch}.context_length": Value("u32", _count(config, "max_position_embeddings")),
        f"{arch}.embedding_length": Value("u32", hidden),
        f"{arch}.block_count": Value("u32", _count(config, "num_hidden_layers")),
        f"{arch}.feed_forward_length": Value("u32", _count(config, "intermediate_size")),
        f"{arch}.attention.head_count": Value("u32", queries),
        f"{arch}.attention.head_count_kv": Value("u32", keys),
    }
    if arch == "bert":
        return found | {
            "bert.attention.layer_norm_epsilon": Value("f32", float(config.get("layer_norm_eps", 1e-12))),
            "bert.attention.causal": Value("bool", False),
            "bert.pooling_type": Value("u32", int(config.get("_bitwright_pooling", 0))),
        }
    found |= {
        f"{arch}.attention.key_length": Value("u32", size),
        f"{arch}.attention.value_length": Value("u32", size),
        f"{arch}.attention.layer_norm_rms_epsilon": Value("f32", float(config.get("rms_norm_eps", 1e-6))),
        f"{arch}.rope.dimension_count": Value("u32", size),
    }
    return found | _rope(config, arch) | _experts(config, arch)


def _count(config: Mapping[str, Any], key: str) -> int:
    value = config.get(key)
    if type(value) is not int or value <= 0:
        raise InvalidModel(f"config.json has no usable '{key}'", expected="a positive integer", got=repr(value)[:40])
    return value


def _rope(config: Mapping[str, Any], arch: str) -> dict[str, Value]:
    rope = rope_parameters(config)
    kind = str(rope["rope_type"])
    if kind not in _ROPE:
        raise Unsupported("llama.cpp has no such rope scaling here", expected=", ".join(_ROPE), got=kind[:80])
    _refuse_odd_rope(rope, kind)
    if arch != "llama" and kind in ("llama3", "longrope"):
        raise Unsupported(
            "llama.cpp loads rope_freqs.weight for the Llama family alone", expected="linear or yarn", got=kind,
            hint="use another container",
        )  # fmt: skip
    found = {f"{arch}.rope.freq_base": Value("f32", positive(rope, "rope_theta"))}
    if _ROPE[kind] is not None:
        found[f"{arch}.rope.scaling.type"] = Value("string", str(_ROPE[kind]))
        found[f"{arch}.rope.scaling.factor"] = Value("f32", positive(rope, "factor"))
        original = rope.get("original_max_position_embeddings")
        if original is not None:
            found[f"{arch}.rope.scaling.original_context_length"] = Value("u32", int(original))
    return found


def _refuse_odd_rope(rope: Mapping[str, Any], kind: str) -> None:
    """Settings that a GGUF file has no words for, or that llama.cpp would take otherwise without a word."""
    odd: dict[str, Any] = {}
    if kind == "yarn":
        factor = positive(rope, "factor")
        usual = {
            "attention_factor": yarn_attention(factor), "beta_fast": BETA_FAST, "beta_slow": BETA_SLOW,
            "truncate": True, "mscale": 1, "mscale_all_dim": 0,
        }  # fmt: skip
        odd = {key: rope[key] for key, value in usual.items() if rope.get(key) not in (None, value)}
    elif kind == "longrope":
        if rope.get("short_factor") != rope.get("long_factor"):
            odd["short_factor"] = "another list than long_factor"
        if float(rope.get("attention_factor") or 0.0) != 1.0:
            odd["attention_factor"] = rope.get("attention_factor")
    if float(rope.get("partial_rotary_factor") or 1.0) != 1.0:
        odd["partial_rotary_factor"] = rope["partial_rotary_factor"]
    if odd:
        raise Unsupported(
            f"llama.cpp would rotate otherwise than this model's {kind} rope", expected="the usual settings",
            got=", ".join(f"{key} {value}" for key, value in odd.items())[:200], hint="use another container",
        )  # fmt: skip


def _experts(config: Mapping[str, Any], arch: str) -> dict[str, Value]:
    count = config.get("num_local_experts") or config.get("num_experts")
    if not count:
        return {}
    found = {
        f"{arch}.expert_count": Value("u32", int(count)),
        f"{arch}.expert_used_count": Value("u32", _count(config, "num_experts_per_tok")),
    }
    for key, name in (
        ("moe_intermediate_size", "expert_feed_forward_length"),
        ("shared_expert_intermediate_size", "expert_shared_feed_forward_length"),
    ):
        if config.get(key):
            found[f"{arch}.{name}"] = Value("u32", int(config[key]))
    return found


def _refuse_differences(config: Mapping[str, Any], model_type: str) -> None:
    """What the graphs of llama.cpp fix and a config may say otherwise."""
    wanted = {"bert": ("gelu",)}.get(model_type, ("silu", "swish"))
    normalized = {"qwen3_moe": True, "qwen2_moe": False}.get(model_type)
    checks: tuple[tuple[bool, str, Any, Any], ...] = (
        (str(config.get("hidden_act", wanted[0])) in wanted, "hidden_act", config.get("hidden_act"), wanted[0]),
        (
            normalized is None or bool(config.get("norm_topk_prob", normalized)) == normalized,
            "norm_topk_prob",
            config.get("norm_topk_prob"),
            normalized,
        ),
        (int(config.get("decoder_sparse_step") or 1) == 1, "decoder_sparse_step", config.get("decoder_sparse_step"), 1),
        (not config.get("mlp_only_layers"), "mlp_only_layers", config.get("mlp_only_layers"), []),
        (
            str(config.get("position_embedding_type", "absolute")) == "absolute",
            "position_embedding_type",
            config.get("position_embedding_type"),
            "absolute",
        ),
    )
    for fine, key, got, expected in checks:
        if not fine:
            raise Unsupported(
                f"llama.cpp would compute this model otherwise: its graph fixes {key}",
                expected=repr(expected), got=repr(got)[:80], hint="use another container",
            )  # fmt: skip
