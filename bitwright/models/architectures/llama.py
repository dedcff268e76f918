"""Llama and the dense decoders that share its names: Mistral, Qwen, Gemma, OLMo, Granite, GLM, Phi-3's fused form."""

from __future__ import annotations

from bitwright.models.architectures.rules import BIAS, NORM, Architecture, Facts, Keep, Linear, heads

BLOCK = r"(?P<block>(?:model\.|language_model\.)*layers\.(?P<layer>[0-9]{1,6}))\."
ATTENTION = "{block}.self_attn.qkv"


def is_tied(facts: Facts) -> bool:
    return facts.tied


def attention() -> tuple[Linear, ...]:
    """Attention projections; q, k and v are one matrix in engines that fuse them."""
    split = tuple(
        Linear(BLOCK + rf"self_attn\.{role}_proj\.weight", f"self_attn.{role}_proj", {"qkv": ATTENTION})
        for role in ("q", "k", "v")
    )
    return (
        *split,
        Linear(BLOCK + r"self_attn\.qkv_proj\.weight", "self_attn.qkv_proj"),
        Linear(BLOCK + r"self_attn\.o_proj\.weight", "self_attn.o_proj"),
    )


def mlp(name: str = "mlp") -> tuple[Linear, ...]:
    """Gated MLP; gate and up are one matrix in engines that fuse them."""
    escaped, key = name.replace(".", r"\."), "{block}." + name + ".gate_up"
    return (
        Linear(BLOCK + escaped + r"\.gate_proj\.weight", f"{name}.gate_proj", {"gate_up": key}),
        Linear(BLOCK + escaped + r"\.up_proj\.weight", f"{name}.up_proj", {"gate_up": key}),
        Linear(BLOCK + escaped + r"\.gate_up_proj\.weight", f"{name}.gate_up_proj"),
        Linear(BLOCK + escaped + r"\.down_proj\.weight", f"{name}.down_proj"),
    )


HEAD: tuple[Linear | Keep, ...] = (
    Keep(r"lm_head\.weight", "tied_head", "a stored copy of the embedding: the config ties the two", is_tied),
    Linear(r"lm_head\.weight", "lm_head"),
    *heads("score", "classifier"),
)
REST: tuple[Linear | Keep, ...] = (
    Keep(
        r"(?:model\.|language_model\.)*embed_tokens\.weight",
        "embedding",
        "looked up by row, not multiplied; engines keep it in 16 bits",
    ),
    Keep(r".*rotary_emb\.inv_freq", "rotary", "frequencies of the rotary embedding, computed anew by engines"),
    NORM,
    BIAS,
)

LLAMA = Architecture(
    name="llama",
    model_types=(
        "llama",
        "mistral",
        "ministral",
        "qwen2",
        "qwen3",
        "gemma",
        "gemma2",
        "gemma3_text",
        "phi3",
        "smollm3",
        "olmo",
        "olmo2",
        "granite",
        "stablelm",
        "cohere",
        "cohere2",
        "glm",
        "glm4",
        "nemotron",
    ),
    rules=(*attention(), *mlp(), *HEAD, *REST),
)
