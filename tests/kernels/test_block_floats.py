"""Small floats against torch's own types, published grids, and ggml's package (mxfp4)."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch
from gguf import quants
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.core.block_format import BlockFormat
from bitwright.core.errors import InvalidModel, Unsupported
from bitwright.core.formats import parse_format
from gpu_kernels import build
from gpu_kernels.block_floats import (
    E2M1,
    E4M3,
    E5M2,
    NF4_LEVELS,
    FloatCodec,
    SmallFloat,
    dequantize_reference,
    quantize_reference,
)
from gpu_kernels.kernels import absmax
from quantizers.base import Blocks
from quantizers.containers.packed_blocks import values as plain_values
from quantizers.rtn import QUANTIZER
from tests.kernels.test_native import SPEEDS

NAMES = ("fp8-e4m3", "fp8-e5m2", "mxfp8", "mxfp4", "nvfp4", "nf4", "nf4-g1", "nf4-g7", "nf4-g128")
EVERY = pytest.mark.parametrize("name", NAMES)
TORCH = {"e4m3": (E4M3, torch.float8_e4m3fn), "e5m2": (E5M2, torch.float8_e5m2)}


def quantized(weight: np.ndarray, name: str) -> Blocks:
    found = QUANTIZER.quantize(weight.astype(np.float32), parse_format(name))
    assert isinstance(found, Blocks)
    return found


@pytest.mark.parametrize("name", TORCH)
def test_small_floats_are_those_of_torch(name: str) -> None:
    ours, dtype = TORCH[name]
    values = torch.arange(256, dtype=torch.uint8).view(dtype).float().numpy()
    mine = ours.values()
    finite = np.isfinite(values)
    assert np.array_equal(mine[finite], values[finite])
    assert np.isnan(mine[~finite]).all()
    top = np.float32(values[finite].max())
    rng = np.random.default_rng(0)
    x = (rng.standard_normal(200_000) * 10.0 ** rng.integers(-9, 5, 200_000)).astype(np.float32)
    middles = (values[finite][:-1] + values[finite][1:]) / 2
    x = np.concatenate([np.clip(x, -top, top), values[finite], middles, [0.0, -0.0, 1e-45]]).astype(np.float32)
    x = np.clip(x, -top, top)
    expected = torch.from_numpy(x).to(dtype).view(torch.uint8).numpy()
    assert np.array_equal(ours.encode(x), expected)
    assert ours.encode(np.array([1e30, -1e30], np.float32)).tolist() == [ours.last, ours.last | 0x80]


def test_e2m1_is_the_published_grid_and_rounds_to_even() -> None:
    grid = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
    assert E2M1.values().tolist() == [*grid, *(-v for v in grid)]
    x = np.array([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, 7.0, -0.26, -5.01], np.float32)
    assert E2M1.values()[E2M1.encode(x)].tolist() == [0.0, 1.0, 1.0, 2.0, 2.0, 4.0, 4.0, 6.0, -0.5, -6.0]


@given(st.sampled_from([E4M3, E5M2, E2M1]), st.floats(-1e6, 1e6, width=32))
def test_encoding_is_nearest(kind: SmallFloat, value: float) -> None:
    values = kind.values()
    finite = values[np.isfinite(values)]
    got = values[kind.encode(np.array([value], np.float32))[0]]
    held = min(max(value, float(finite.min())), float(finite.max()))
    assert abs(float(got) - held) == pytest.approx(float(np.abs(finite.astype(np.float64) - held).min()), abs=0)


@EVERY
@settings(max_examples=20, deadline=None)
@given(st.integers(1, 4), st.integers(1, 150), st.sampled_from([1.0, 1e-4, 1e4]), st.integers(0, 2**32 - 1))
def test_blocks_are_near_and_the_plain_reader_agrees(
    name: str, rows: int, columns: int, spread: float, seed: int
) -> None:
    weight = (np.random.default_rng(seed).standard_normal((rows, columns)) * spread).astype(np.float32)
    found = quantized(weight, name)
    dense = found.dequantize()
    assert dense.shape == weight.shape
    plain = plain_values(found.data, found.scales, name, columns)
    assert np.array_equal(plain, dense)
    step = {"fp8-e4m3": 1 / 16, "fp8-e5m2": 1 / 8, "mxfp8": 1 / 16}.get(name, 0.34)
    top = np.abs(weight).max(axis=1, keepdims=True)
    # Relative to the weight for floats of 8 bits, to the largest of the row for 4; mx scales may clip up to 1/8.
    relative = np.abs(weight) if name.startswith("fp8") or name == "mxfp8" else np.broadcast_to(top, weight.shape)
    slack = 0.13 * np.abs(weight) if name.startswith("mx") else 0.0
    limit = np.maximum(relative * step * 1.01 + slack, top * 2.0**-9) + (spread * 2**-9 if name == "nvfp4" else 0)
    assert (np.abs(dense - weight) <= limit).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_mxfp4_blocks_are_those_of_ggml(rows: int, blocks: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    found = quantized(rng.standard_normal((rows, 32 * blocks)), "mxfp4")
    theirs = quants.dequantize(found.data, gguf.GGMLQuantizationType.MXFP4)
    assert np.array_equal(found.dequantize(), theirs)


def test_nf4_levels_are_exact_and_ends_are_one() -> None:
    weight = np.concatenate([NF4_LEVELS * 4, np.zeros(48, np.float32)])[None]
    assert np.array_equal(quantized(weight, "nf4").dequantize(), weight)


@EVERY
def test_zero_rows_one_weight_nothing_and_what_cannot_be_held(name: str) -> None:
    for shape in ((2, 1), (3, 70), (2, 0), (0, 5)):
        assert not quantized(np.zeros(shape), name).dequantize().any()
    mixed = np.zeros((2, 64), np.float32)
    mixed[1] = 1e-30
    assert np.isfinite(quantized(mixed, name).dequantize()).all()
    with pytest.raises(InvalidModel, match="NaN or infinity"):
        quantized(np.array([[1.0, np.inf]]), name)
    with pytest.raises(Unsupported, match="too large"):
        quantized(np.array([[1.0, 3e38]]), name)


def _extremes(kind: int, rows: int, columns: int, seed: int) -> np.ndarray:
    """Weights of one size, of all sizes, at ties and the ends of the grids, and mostly zeros of both signs."""
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((rows, columns)) * 10.0 ** rng.integers(-44, 4)
    if kind == 1:
        weight = rng.choice([0.0, -0.0, 0.25, 0.5, -0.75, 1.25, 2.5, 6.0, -448.0, 1e-40], (rows, columns))
    if kind == 2:
        weight = rng.standard_normal((rows, columns)) * 10.0 ** rng.integers(-30, 4, (rows, columns))
    if kind == 3:
        weight[:, : columns // 2], weight[:, columns // 2 :: 2] = -0.0, 0.0
    return weight.astype(np.float32)


@pytest.mark.skipif(build.compiler() is None, reason="no C++ compiler here")
@pytest.mark.parametrize("fast", SPEEDS, ids=["scalar", "avx2", "best"])
@pytest.mark.parametrize("name", [*NAMES, "nf4-g17"])
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 3), st.integers(1, 4), st.integers(1, 150), st.integers(0, 2**32 - 1))
def test_native_small_floats_are_those_of_numpy(
    name: str, fast: int, kind: int, rows: int, columns: int, seed: int
) -> None:
    format, codec = parse_format(name), FloatCodec()
    assert isinstance(format, BlockFormat)
    weight = _extremes(kind, rows, columns, seed)
    data, scales = codec.quantize(weight, format, fast=fast)
    expected, expected_scales = quantize_reference(weight, format)
    assert np.array_equal(data, expected)
    assert scales is None or np.array_equal(scales, expected_scales)
    some_bytes = np.random.default_rng(seed).integers(0, 256, data.shape).astype(np.uint8)
    for blocks in (data, some_bytes):  # NaN codes and infinite scales of any bytes included
        dense = codec.dequantize(blocks, scales, format, columns, fast=fast)
        assert np.array_equal(dense, dequantize_reference(blocks, scales, format, columns), equal_nan=True)


@pytest.mark.parametrize("fast", SPEEDS, ids=["scalar", "avx2", "best"])
def test_largest_magnitude_of_any_length_and_address(fast: int) -> None:
    rng = np.random.default_rng(0)
    for n in range(70):
        for at in range(3):
            x = rng.standard_normal(n + at).astype(np.float32)[at:]
            assert absmax(x, fast=fast) == np.abs(x).max(initial=0)
    x[7] = np.inf
    assert absmax(x, fast=fast) == np.inf
    x[3] = -np.nan
    assert np.isnan(absmax(x, fast=fast))
