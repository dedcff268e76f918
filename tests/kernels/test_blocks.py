"""ggml's types against ggml's own Python package: it reads our bytes to the same bits; plain types byte for byte."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
from gguf import quants
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.core.errors import InvalidInput, InvalidModel, Unsupported
from bitwright.core.formats import GGML_FORMATS, parse_format
from gpu_kernels import build
from gpu_kernels.block_layouts import LAYOUTS
from gpu_kernels.block_reference import PLAIN, in_blocks, quantize_plain
from gpu_kernels.block_reference import dequantize_blocks as dequantize_numpy
from gpu_kernels.block_search import quantize_searched
from gpu_kernels.blocks import GgmlCodec, dequantize_blocks
from gpu_kernels.library import library
from quantizers.base import Blocks
from quantizers.containers.packed_blocks import values as plain_values
from quantizers.rtn import QUANTIZER
from tests.kernels.test_native import SPEEDS

NATIVE = pytest.mark.skipif(build.compiler() is None, reason="no C++ compiler here")
EVERY = pytest.mark.parametrize("name", sorted(GGML_FORMATS))


@pytest.fixture(scope="module", autouse=True)
def built() -> None:
    build.build()
    library.cache_clear()


def kind(name: str) -> gguf.GGMLQuantizationType:
    return gguf.GGMLQuantizationType[name.upper()]


def random_blocks(name: str, rows: int, blocks: int, seed: int) -> np.ndarray:
    """Any bytes at all, with finite float16 numbers where the block has them."""
    rng, layout = np.random.default_rng(seed), LAYOUTS[name]
    raw = rng.integers(0, 256, (rows * blocks, layout.nbytes)).astype(np.uint8)
    for offset in layout.halves.values():
        halves = rng.standard_normal(rows * blocks) * 10.0 ** rng.integers(-6, 4, rows * blocks)
        raw[:, offset : offset + 2] = halves.astype(np.float16).view(np.uint8).reshape(-1, 2)
    return raw.reshape(rows, blocks * layout.nbytes)


def quantized(weight: np.ndarray, name: str) -> Blocks:
    found = QUANTIZER.quantize(weight, parse_format(name))
    assert isinstance(found, Blocks)
    return found


@EVERY
@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(0, 40), st.integers(0, 2**32 - 1))
def test_any_bytes_mean_what_they_mean_to_ggml(name: str, rows: int, blocks: int, cut: int, seed: int) -> None:
    layout = LAYOUTS[name]
    raw = random_blocks(name, rows, blocks, seed)
    columns = blocks * layout.block - cut % layout.block
    expected = quants.dequantize(raw, kind(name))[:, :columns]
    ours = dequantize_blocks(raw, None, parse_format(name), columns)  # type: ignore[arg-type]
    assert np.array_equal(ours.view(np.uint32), np.ascontiguousarray(expected).view(np.uint32))
    assert np.array_equal(plain_values(raw, None, name, columns), expected)
    fields, halves = layout.unpack(raw.reshape(-1, layout.nbytes))
    assert np.array_equal(layout.pack(fields, halves).reshape(raw.shape), raw)


@EVERY
@settings(max_examples=12, deadline=None)
@given(st.integers(1, 3), st.integers(200, 600), st.sampled_from([1.0, 1e-3, 30.0]), st.integers(0, 2**32 - 1))
def test_rounding_stays_near_and_is_stable(name: str, rows: int, columns: int, spread: float, seed: int) -> None:
    """The error of normal weights is that of their bits; padding a row changes nothing."""
    rng = np.random.default_rng(seed)
    weight = (rng.standard_normal((rows, columns)) * spread).astype(np.float32)
    weight[rng.random(weight.shape) < 0.1] = 0
    found = quantized(weight, name)
    assert found.shape == weight.shape
    dense = found.dequantize()
    padded = np.zeros((rows, -(-columns // LAYOUTS[name].block) * LAYOUTS[name].block), np.float32)
    padded[:, :columns] = weight
    assert np.array_equal(found.data, quantized(padded, name).data)
    bits = LAYOUTS[name].bits
    error = float(((dense - weight) ** 2).sum()) / max(float((weight**2).sum()), 1e-30)
    assert error < 4.0 * 4.0**-bits


@pytest.mark.parametrize("name", PLAIN)
@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.sampled_from([1.0, 1e-4, 1e-9, 500.0]), st.integers(0, 2**32 - 1))
def test_plain_types_have_the_bytes_of_ggml(name: str, rows: int, blocks: int, spread: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    weight = (rng.standard_normal((rows, 32 * blocks)) * spread).astype(np.float32)
    weight[rng.random(weight.shape) < 0.2] = 0
    weight[rng.random(weight.shape) < 0.1] = np.float32(0.25 * spread)
    assert np.array_equal(quantized(weight, name).data, quants.quantize(weight, kind(name)))


def hard_weights(rows: int, columns: int, spread: float, seed: int) -> np.ndarray:
    """Normal weights with zero runs, constants, ties, denormals and large numbers among them."""
    rng = np.random.default_rng(seed)
    weight = (rng.standard_normal((rows, columns)) * spread).astype(np.float32)
    weight[rng.random(weight.shape) < 0.15] = 0
    weight[rng.random(weight.shape) < 0.05] = np.float32(-0.0)
    weight[rng.random(weight.shape) < 0.1] = np.float32(0.25 * spread)
    for start in range(0, columns, 32):
        kind = rng.integers(0, 12)
        part = weight[:, start : start + 32]
        part[:] = {0: 0.0 * part, 1: 0 * part - np.float32(spread), 2: part * np.float32(1e-38)}.get(int(kind), part)
    return weight


@NATIVE
@EVERY
@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3), st.integers(1, 800), st.sampled_from([1.0, 1e-7, 1e-20, 3000.0]), st.integers(0, 2**32 - 1))
def test_native_blocks_equal_numpy(name: str, rows: int, columns: int, spread: float, seed: int) -> None:
    assert library() is not None
    weight, format, layout, codec = (
        hard_weights(rows, columns, spread, seed),
        GGML_FORMATS[name],
        LAYOUTS[name],
        GgmlCodec(),
    )
    x = in_blocks(weight, layout.block)
    made = quantize_plain(x, layout) if name in PLAIN else quantize_searched(x, layout)
    expected = made.reshape(rows, -1)
    raw = random_blocks(name, rows, -(-columns // layout.block), seed)
    dense = dequantize_numpy(raw, name, columns)
    for fast in SPEEDS:
        assert np.array_equal(codec.quantize(weight, format, fast=fast)[0], expected)
        again = codec.dequantize(raw, None, format, columns, fast=fast)
        assert np.array_equal(again.view(np.uint32), dense.view(np.uint32))


@EVERY
def test_zero_rows_one_weight_and_nothing(name: str) -> None:
    for shape in ((2, 1), (3, 300), (2, 0), (0, 5)):
        found = quantized(np.zeros(shape, np.float32), name)
        dense = found.dequantize()
        assert dense.shape == shape
        assert not dense.any()


@EVERY
def test_weights_that_no_block_holds_are_refused(name: str) -> None:
    for bad in (np.nan, np.inf):
        weight = np.ones((2, 256), np.float32)
        weight[1, 7] = bad
        with pytest.raises(InvalidModel, match="NaN or infinity"):
            quantized(weight, name)
    with pytest.raises(Unsupported, match="too large"):
        quantized(np.full((1, 32), 3e38, np.float32), name)
    largest = np.full((1, 256), 30000.0, np.float32)
    assert np.isfinite(quantized(largest, name).dequantize()).all()


def test_bytes_of_another_size_are_refused() -> None:
    format = parse_format("q4_k")
    for shape in ((2, 143), (2, 288), (144,)):
        with pytest.raises(InvalidInput, match="blocks of q4_k"):
            dequantize_blocks(np.zeros(shape, np.uint8), None, format, 256)  # type: ignore[arg-type]
