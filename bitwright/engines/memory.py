"""Memory of a served model beside its file: KV cache, activations, what the engine takes. Pure arithmetic.

KV cache: keys and values of every layer, `kv_heads * head_size` numbers a token each (grouped-query attention, Ainslie
et al. 2023, section 2.2). A sliding window is not counted on: the whole context is held.
Activations: the numbers that live at once in the widest step of a block, for the tokens of one forward step: residual,
normed input, q, k, v and the attention's output, gate, up and their product; and the logits in float32. Attention
scores are taken as never stored (fused kernels). An estimate on the safe side for the engines whose profiles say so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from bitwright.core.budget import Served
from bitwright.core.errors import Unsupported
from bitwright.engines.facts import KvCache, Memory

LOGIT_BYTES = 4


@dataclass(frozen=True)
class ServedShape:
    """Sizes of a causal language model that its memory depends on. inner: width of a block's MLP at work."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_size: int
    inner: int
    vocabulary: int


def served_shape(config: Mapping[str, Any]) -> ServedShape:
    """Sizes from config.json. Raises Unsupported for a model that keeps no KV cache or does not say its sizes."""

    def count(*keys: str) -> int:
        for key in keys:
            value = config.get(key)
            if type(value) is int and value > 0:
                return value
        raise Unsupported(
            "a device budget needs a causal language model with its sizes in config.json",
            expected=" or ".join(keys), got="nothing usable", hint="give the budget as a file size, such as 4.2GiB",
        )  # fmt: skip

    heads, hidden = count("num_attention_heads"), count("hidden_size")
    inner = count("intermediate_size", "moe_intermediate_size")
    if config.get("num_experts_per_tok"):
        expert = config.get("moe_intermediate_size") or inner
        inner = max(inner, int(expert) * count("num_experts_per_tok"))
    head_size = config.get("head_dim")
    return ServedShape(
        layers=count("num_hidden_layers"), hidden=hidden, heads=heads,
        kv_heads=count("num_key_value_heads", "num_attention_heads"),
        head_size=head_size if type(head_size) is int and head_size > 0 else hidden // heads,
        inner=inner, vocabulary=count("vocab_size"),
    )  # fmt: skip


def cache_numbers(shape: ServedShape, served: Served) -> int:
    """Numbers in the keys (or in the values) of all layers, tokens and sequences."""
    return shape.layers * shape.kv_heads * shape.head_size * served.context * served.batch


def cache_bytes(shape: ServedShape, served: Served, row: KvCache) -> int:
    """Bytes of a line's part of the cache, scales included, rounded up."""
    numbers = cache_numbers(shape, served) * (2 if row.parts == "both" else 1)
    return -(-(numbers * row.width.numerator) // (8 * row.width.denominator))


def activation_bytes(shape: ServedShape, served: Served, memory: Memory) -> int:
    """Bytes of one forward step's activations and logits."""
    tokens = min(memory.step_tokens, served.context * served.batch)
    attention = (2 * shape.heads + 2 * shape.kv_heads) * shape.head_size
    live = 2 * shape.hidden + max(attention, 3 * shape.inner)
    rows = tokens if memory.logits == "step" else served.batch
    return tokens * live * memory.activation_bytes + rows * shape.vocabulary * LOGIT_BYTES


def usable_bytes(device_bytes: Fraction, memory: Memory) -> int:
    """What the engine may take of the device."""
    return int(device_bytes * Fraction(memory.usable).limit_denominator(1000))
