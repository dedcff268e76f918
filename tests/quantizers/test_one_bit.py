"""Levels {0, s}: the rule of quantizers.one_bit in Python's own numbers, and how near it comes to the best s of all."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.core.errors import Unsupported
from bitwright.core.formats import parse_format
from quantizers.base import Quantized
from quantizers.one_bit import one_bit
from quantizers.rtn import QUANTIZER, group_parameters

F = np.float32


def beyond(numbers: list[int], threshold: int) -> tuple[np.float32, np.float32]:
    chosen = [n for n in numbers if n > threshold]
    return F(sum(chosen)), F(max(1, len(chosen)))


def by_hand(group: np.ndarray) -> tuple[list[bool], bool, np.float32]:
    """(weights at the level, whether it is negative, its magnitude), one number at a time."""
    top = max(F(np.abs(group).max()), F(2.0**-100))
    inverse, unit = F(4095) / top, top / F(4095)
    position = [round(float(F(x) * inverse)) for x in group]  # halves to even
    norm = F(sum(n * n for n in position))
    spread = max(np.sqrt(norm / F(len(group))), F(1))
    factor = int(min(F(16 << 15) / spread, F(32767)))
    small = [max(-127, min(127, (n * factor + (1 << 14)) >> 15)) for n in position]
    best, mean, below = F(-1), F(0), False
    for start in (10, 24):
        for side in (True, False):
            total, count = beyond([-n for n in small] if side else small, start)
            if (total / count) * total > best:
                best, mean, below = (total / count) * total, total / count, side
    threshold = int(mean * (F(1 << 14) / F(factor)))
    position = [-n for n in position] if below else position
    along, _ = beyond(position, threshold)
    return [n > threshold for n in position], below, norm / along * unit if along else F(0)


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 140), st.sampled_from([1e-6, 1.0, 100.0]), st.booleans(), st.integers(0, 2**32 - 1))
def test_one_bit_follows_its_rule(size: int, spread: float, ties: bool, seed: int) -> None:
    group = np.random.default_rng(seed).standard_t(3, size) * spread
    group = (np.round(group / spread * 2) * spread if ties else group).astype(np.float32)
    chosen, below, level = by_hand(group)
    found = one_bit(group[None, None])
    assert (found.level[0, 0], bool(found.below[0, 0])) == (level, below)
    for name in ("int1-channel", "int1-sym-channel", "int1-channel-fp32"):
        value = QUANTIZER.quantize(group[None], parse_format(name))
        assert isinstance(value, Quantized)
        kept = level >= (2.0**-24 if "fp32" not in name else 2.0**-100)
        signed = (-1 if below else 1) * float(level)
        expected = np.where(np.array(chosen) & kept, signed, 0.0)
        assert np.allclose(value.dequantize()[0], expected, rtol=2**-10, atol=2.0**-25)


def best_of_all(group: np.ndarray) -> float:
    """Squared error of the best s, by trying every count of largest weights of either sign."""
    gains = [0.0]
    for sign in (-1.0, 1.0):
        side = np.sort(np.maximum(group.astype(np.float64) * sign, 0))[::-1]
        gains.append(float((np.cumsum(side) ** 2 / np.arange(1, side.size + 1)).max()))
    return float((group.astype(np.float64) ** 2).sum()) - max(gains)


@pytest.mark.parametrize(("draw", "limit"), [("normal", 1.002), ("laplace", 1.006), ("t5", 1.008)])
def test_the_loss_is_near_that_of_the_best_scale(draw: str, limit: float) -> None:
    rng, shape = np.random.default_rng(0), (3000, 64)
    if draw == "normal":
        weight = rng.standard_normal(shape)
    else:
        weight = rng.laplace(size=shape) if draw == "laplace" else rng.standard_t(5, shape)
    groups = weight.astype(np.float32)
    found = one_bit(groups[:, None])
    chosen = found.codes(groups[:, None], np.ones(found.below.shape, bool), False)[:, 0] ^ found.below
    wide = groups.astype(np.float64)
    along = np.abs((wide * chosen).sum(axis=1))
    lost = (wide**2).sum() - (along**2 / np.maximum(chosen.sum(axis=1), 1)).sum()
    assert lost <= limit * math.fsum(best_of_all(group) for group in groups)


def test_the_mean_of_those_beyond_is_the_scale_that_others_round_with() -> None:
    group = np.random.default_rng(1).standard_normal((2, 3, 40)).astype(np.float32)
    found, format = one_bit(group), parse_format("int1-g40-fp32")
    scale, zero = group_parameters(group, group.min(axis=-1), group.max(axis=-1), format, "w")  # type: ignore[arg-type]
    chosen = found.codes(group, np.ones(found.below.shape, bool), False) ^ found.below[..., None]
    assert np.allclose(scale, np.abs((group * chosen).sum(axis=-1)) / chosen.sum(axis=-1), rtol=1e-3)
    assert np.array_equal(zero, found.below)


def test_a_level_beyond_half_is_refused_and_one_below_it_is_zero() -> None:
    with pytest.raises(Unsupported):
        QUANTIZER.quantize(np.full((1, 40), 7e4, np.float32), parse_format("int1-g40"))
    small = QUANTIZER.quantize(np.full((1, 40), 3e-8, np.float32), parse_format("int1-sym-g40"))
    assert not small.dequantize().any()  # type: ignore[union-attr]
