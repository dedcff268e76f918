"""Scaling of rotary frequencies: what config.json says of it, and the same as a GGUF file has it, in both directions.

GGUF has no words for Llama 3.1's rule: the divisors of the frequencies stand in a tensor, `rope_freqs.weight`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.core.errors import InvalidModel, Unsupported

Factors = NDArray[np.float32]
#: What `_compute_yarn_parameters` of transformers 5.23 and llama.cpp's rope_yarn both take when nothing is said.
BETA_FAST, BETA_SLOW = 32.0, 1.0
#: (low, high) of every Llama 3.1 to 3.3 checkpoint, and contexts that such models were trained with.
_LLAMA3 = (1.0, 4.0)
_TRAINED = tuple(1 << bits for bits in range(9, 19))


def rope_parameters(config: Mapping[str, Any]) -> dict[str, Any]:
    """transformers 5 writes `rope_parameters`; before, `rope_theta` and `rope_scaling`."""
    found = dict(config.get("rope_scaling") or {}) | dict(config.get("rope_parameters") or {})
    kind = found.get("rope_type") or found.get("type") or "default"
    return {**found, "rope_type": kind, "rope_theta": found.get("rope_theta", config.get("rope_theta", 10000.0))}


def positive(rope: Mapping[str, Any], key: str) -> float:
    """A setting that must be a positive number. Raises InvalidModel."""
    value = rope.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e30:
        raise InvalidModel(
            f"config.json has no usable '{key}' for its rope", expected="a positive number", got=repr(value)[:40]
        )
    return float(value)


def yarn_attention(factor: float) -> float:
    """The factor that YaRN multiplies into cosines and sines (arXiv 2309.00071, section 3.4)."""
    return 0.1 * math.log(factor) + 1.0 if factor > 1 else 1.0


def rope_factors(config: Mapping[str, Any]) -> Factors | None:
    """float32 (head_dim / 2) divisors of the rotary frequencies, as `rope_freqs.weight` holds them; None without."""
    rope = rope_parameters(config)
    if rope["rope_type"] not in ("longrope", "llama3"):
        return None
    size = int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])
    if rope["rope_type"] == "llama3":
        return llama3_factors(rope, size)
    factors = np.array(rope["long_factor"], np.float32)
    if factors.shape != (size // 2,) or not np.isfinite(factors).all() or (factors <= 0).any():
        raise InvalidModel("the rope's long_factor is wrong", expected=f"{size // 2} positive numbers", got="others")
    return factors


def llama3_factors(rope: Mapping[str, Any], size: int) -> Factors:
    """Llama 3.1's rule: wavelengths above old/low divided by `factor`, below old/high kept, between them blended."""
    factor, low, high = (positive(rope, key) for key in ("factor", "low_freq_factor", "high_freq_factor"))
    old = positive(rope, "original_max_position_embeddings")
    if low >= high:
        raise InvalidModel("the rope's factors are in the wrong order", expected="low below high", got=f"{low}, {high}")
    frequencies = positive(rope, "rope_theta") ** -(np.arange(0, size, 2, dtype=np.float64) / size)
    wavelengths = 2 * math.pi / frequencies
    blend = (old / wavelengths - low) / (high - low)
    smooth = 1 / ((1 - blend) / factor + blend)
    found = np.where(wavelengths < old / high, 1.0, np.where(wavelengths > old / low, factor, smooth))
    return found.astype(np.float32)


def rope_from_gguf(
    metadata: Mapping[str, Any], arch: str, number: Callable[..., Any], factors: Factors | None, size: int
) -> dict[str, Any]:
    """`rope_theta` of config.json and, where the file scales, `rope_scaling`.

    number: reads a positive number of the file's metadata. factors: what `rope_freqs.weight` holds.
    Raises Unsupported for a scaling that transformers would compute otherwise.
    """
    theta = number("rope.freq_base", 10000.0)
    kind = str(metadata.get(f"{arch}.rope.scaling.type", "none"))
    if factors is not None:
        if kind != "none":
            raise Unsupported("a GGUF model has rope factors and a scaling", expected="one of them", got=kind[:40])
        return {"rope_theta": theta, "rope_scaling": _from_factors(factors, theta, size, number)}
    if kind == "none":
        return {"rope_theta": theta}
    if kind not in ("linear", "yarn"):
        raise Unsupported("GGUF models with this rope scaling are not read", expected="linear, yarn", got=kind[:40])
    scaling: dict[str, Any] = {"rope_type": kind, "factor": float(number("rope.scaling.factor"))}
    if kind == "yarn":
        _refuse_odd_yarn(metadata, arch)
        original = number("rope.scaling.original_context_length", number("context_length"))
        scaling["original_max_position_embeddings"] = original
    return {"rope_theta": theta, "rope_scaling": scaling}


def _from_factors(factors: Factors, theta: float, size: int, number: Callable[..., Any]) -> dict[str, Any]:
    """Llama 3.1's rule where it gives these divisors, else the divisors themselves, which `longrope` takes."""
    if factors.shape != (size // 2,) or not np.isfinite(factors).all() or (factors <= 0).any():
        raise InvalidModel("rope_freqs.weight is wrong", expected=f"{size // 2} positive numbers", got="others")
    for old in _TRAINED:
        rule = {
            "rope_type": "llama3", "factor": float(factors.max()), "low_freq_factor": _LLAMA3[0],
            "high_freq_factor": _LLAMA3[1], "original_max_position_embeddings": old,
        }  # fmt: skip
        if np.allclose(llama3_factors({**rule, "rope_theta": theta}, size), factors, rtol=1e-6, atol=0):
            return rule
    each = [float(factor) for factor in factors]
    return {
        "rope_type": "longrope", "factor": 1.0, "attention_factor": 1.0, "short_factor": each, "long_factor": each,
        "original_max_position_embeddings": number("context_length"),
    }  # fmt: skip


def _refuse_odd_yarn(metadata: Mapping[str, Any], arch: str) -> None:
    usual = {
        "attn_factor": 1.0, "yarn_attn_factor": 1.0, "yarn_beta_fast": BETA_FAST, "yarn_beta_slow": BETA_SLOW,
        "yarn_ext_factor": 1.0,
    }  # fmt: skip
    for key, value in usual.items():
        got = metadata.get(f"{arch}.rope.scaling.{key}", value)
        if got != value:
            raise Unsupported(f"a GGUF model sets {key} of its rope scaling", expected=str(value), got=str(got)[:40])
