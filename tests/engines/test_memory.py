"""Memory of a served model: hand-computed sizes, and models that have none."""

from __future__ import annotations

from fractions import Fraction

import pytest

from bitwright.core.budget import Served
from bitwright.core.errors import Unsupported
from bitwright.engines import load_profile, shipped_profiles
from bitwright.engines.facts import KvCache, Memory
from bitwright.engines.memory import activation_bytes, cache_bytes, served_shape, usable_bytes

#: Llama 3.1 8B.
LLAMA = {
    "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "intermediate_size": 14336, "vocab_size": 128256,
}  # fmt: skip


def line(format: str, bits: str, parts: str = "both") -> KvCache:
    return KvCache.model_validate({"format": format, "bits": bits, "parts": parts, "evidence": ["e"]})


def test_the_cache_of_llama_3_8b_is_128_kib_a_token() -> None:
    """2 x 32 layers x 8 heads x 128 numbers x 2 bytes: the figure that everybody knows."""
    shape = served_shape(LLAMA)
    assert cache_bytes(shape, Served(1, 1), line("fp16", "16")) == 128 << 10
    assert cache_bytes(shape, Served(8192, 4), line("fp16", "16")) == 4 << 30
    assert cache_bytes(shape, Served(8192, 4), line("q8_0", "17/2", "keys")) == (2 << 30) * 17 // 32


def test_activations_and_logits() -> None:
    memory = Memory(fixed_bytes=0, step_tokens=512, activation_bytes=2, logits="sequence", usable=0.9, evidence=("e",))
    shape = served_shape(LLAMA)
    live = 2 * 4096 + 3 * 14336
    assert activation_bytes(shape, Served(8192, 4), memory) == 512 * live * 2 + 4 * 128256 * 4
    assert activation_bytes(shape, Served(10, 1), memory) == 10 * live * 2 + 128256 * 4
    assert usable_bytes(Fraction(1000), memory) == 900


def test_experts_count_as_many_as_are_used() -> None:
    moe = {**LLAMA, "moe_intermediate_size": 768, "num_experts_per_tok": 8, "intermediate_size": 1024}
    assert served_shape(moe).inner == 8 * 768


def test_a_model_without_sizes_has_no_device_budget() -> None:
    with pytest.raises(Unsupported, match="sizes in config"):
        served_shape({"hidden_size": 64})


@pytest.mark.parametrize("name", [name for name, profile in shipped_profiles().items() if profile.memory])
def test_profiles_with_memory_also_say_their_caches(name: str) -> None:
    profile = load_profile(name)
    assert profile.kv_cache
    parts = {row.parts for row in profile.kv_cache}
    assert parts in ({"both"}, {"keys", "values"})
