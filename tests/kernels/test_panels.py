"""Rounding of eight groups at a time (whole 32s, no gaps) against numpy: byte for byte, whatever the floats."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.core.formats import parse_format
from gpu_kernels import build, kernels, reference, reference_quantize
from gpu_kernels.library import library
from quantizers import rtn
from quantizers.base import Quantized
from tests.kernels.test_native import SPEEDS

NATIVE = pytest.mark.skipif(build.compiler() is None, reason="no C++ compiler here")
KINDS = ("float32", "float16", "bf16")
#: Group sizes: the three that are constants to the compiler, others, and one of several parts.
GROUPS = (32, 64, 128, 96, 160, 2080)


@pytest.fixture(scope="module", autouse=True)
def built() -> None:
    build.build()
    library.cache_clear()


def weights(rng: np.random.Generator, shape: tuple[int, int], group: int, kind: str) -> np.ndarray:
    """Groups of one sign, of zeros of both signs, of denormals, of ties and of large numbers among normal ones."""
    values = rng.standard_normal(shape).astype(np.float32)
    blocks = values.reshape(-1, group)
    makers = [
        lambda x: np.abs(x), lambda x: -np.abs(x), lambda x: x * 0, lambda x: np.round(x * 4) / 8, lambda x: x * 1e-7,
        lambda x: x * np.float32(9000), lambda x: x * np.float32(1e-30), lambda x: np.where(x > 0, 0.5, -0.5),
        lambda x: x, lambda x: x * 6e-8,
    ]  # fmt: skip
    for row, choice in zip(blocks, rng.integers(0, len(makers), len(blocks)), strict=True):
        row[:] = makers[choice](row)
    if kind == "bf16":
        return (values.view(np.uint32) >> 16).astype(np.uint16)
    return values.astype(kind)


@NATIVE
@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 8), st.booleans(), st.integers(1, 9), st.integers(1, 9), st.sampled_from(GROUPS),
    st.sampled_from(KINDS), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_panels_equal_numpy(bits: int, symmetric: bool, rows: int, each: int, group: int, kind: str, seed: int) -> None:
    stored = weights(np.random.default_rng(seed), (rows, each * group), group, kind)
    weight = reference_quantize.to_float32(stored)
    format = parse_format(f"int{bits}{'-sym' if symmetric else ''}-g{group}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rtn, "rtn_pack", lambda *a, **k: None)
        expected = rtn.QUANTIZER.quantize(weight, format)
    assert isinstance(expected, Quantized)
    for fast in SPEEDS:
        found = kernels.rtn_pack(stored, bits, symmetric, group, rtn.corrects(format), fast=fast)
        assert isinstance(found, tuple)
        assert np.array_equal(found[0], reference.pack(expected.codes, bits))
        assert np.array_equal(found[1].view(np.uint16), expected.scales.view(np.uint16))
        assert (found[2] is None and symmetric) or np.array_equal(found[2], expected.zeros)


@NATIVE
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, 63, 64, 700, 1023])
def test_panels_see_every_number_that_is_none(kind: str, bad: float, at: int) -> None:
    values = np.random.default_rng(at).standard_normal((3, 1024)).astype(np.float32)
    values[2, at] = bad
    stored = (values.view(np.uint32) >> 16).astype(np.uint16) if kind == "bf16" else values.astype(kind)
    for fast in SPEEDS:
        assert kernels.rtn_pack(stored, 4, True, 64, True, fast=fast) == kernels.NOT_FINITE
        assert kernels.rtn_pack(stored, 3, False, 128, False, fast=fast) == kernels.NOT_FINITE


@NATIVE
@pytest.mark.parametrize("symmetric", [False, True])
def test_panels_refuse_scales_beyond_half(symmetric: bool) -> None:
    values = np.ones((9, 64), np.float32)
    values[8, 5] = -1e9
    for fast in SPEEDS:
        assert kernels.rtn_pack(values, 4, symmetric, 64, False, fast=fast) == kernels.SCALE_TOO_LARGE


@NATIVE
@pytest.mark.parametrize("bits", range(2, 9))
def test_panels_write_nothing_beyond_their_rows(bits: int) -> None:
    """Rows shared among threads lie side by side: the last words of one span are not overrun into the next."""
    native, values = library(), np.random.default_rng(bits).standard_normal((5, 96)).astype(np.float32)
    assert native is not None
    room = np.full(5 * 12 * bits + 64, 0xA5, np.uint8)
    scales = np.zeros((5, 3), np.float16)
    status = native.bw_rtn_pack(
        values.ctypes.data, 0, 5, 96, 32, bits, 1, 0, room.ctypes.data, 12 * bits, scales.ctypes.data, None, 1
    )
    assert status == 0
    assert (room[5 * 12 * bits :] == 0xA5).all()
