"""The numpy packer against a bit-by-bit oracle, all widths, ragged rows, and bad input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.core.errors import InvalidInput
from gpu_kernels.catalog import LAYOUTS
from gpu_kernels.reference import pack, unpack, words


def oracle_pack(codes: np.ndarray, bits: int) -> np.ndarray:
    """One Python integer a row, one bit at a time: slow and plain."""
    rows, columns = codes.shape
    count = -(-columns * bits // 32)
    out = np.zeros((rows, count), dtype=np.uint32)
    for r in range(rows):
        stream = 0
        for i in range(columns):
            for k in range(bits):
                stream |= ((int(codes[r, i]) >> k) & 1) << (i * bits + k)
        for w in range(count):
            out[r, w] = (stream >> (32 * w)) & 0xFFFFFFFF
    return out


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("columns", [1, 2, 7, 8, 9, 31, 32, 33, 63, 64, 77, 96])
def test_pack_equals_the_oracle(bits: int, columns: int) -> None:
    codes = np.random.default_rng(bits * 1000 + columns).integers(0, 1 << bits, (3, columns)).astype(np.uint8)
    packed = pack(codes, bits)
    assert packed.shape == (3, words(columns, bits))
    assert np.array_equal(packed, oracle_pack(codes, bits))
    assert np.array_equal(unpack(packed, bits, columns), codes)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 8), st.integers(0, 5), st.integers(0, 200), st.integers(0, 2**32 - 1))
def test_round_trip(bits: int, rows: int, columns: int, seed: int) -> None:
    codes = np.random.default_rng(seed).integers(0, 1 << bits, (rows, columns)).astype(np.uint8)
    assert np.array_equal(unpack(pack(codes, bits), bits, columns), codes)


def test_views_and_long_rows() -> None:
    codes = np.random.default_rng(0).integers(0, 8, (70000, 5)).astype(np.uint8)
    assert np.array_equal(pack(codes.T, 3), pack(np.ascontiguousarray(codes.T), 3))
    assert np.array_equal(unpack(pack(codes, 3), 3, 5), codes)


def test_last_word_is_zero_filled() -> None:
    assert pack(np.full((1, 1), 7, np.uint8), 3)[0, 0] == 7


@pytest.mark.parametrize(
    ("codes", "bits"),
    [
        (np.zeros((2, 2), np.uint8), 0),
        (np.zeros((2, 2), np.uint8), 9),
        (np.full((2, 2), 4, np.uint8), 2),
        (np.zeros((2, 2), np.int8), 4),
        (np.zeros(4, np.uint8), 4),
    ],
)
def test_bad_codes_are_refused(codes: np.ndarray, bits: int) -> None:
    with pytest.raises(InvalidInput):
        pack(codes, bits)


def test_wrong_word_count_is_refused() -> None:
    with pytest.raises(InvalidInput, match="wrong size"):
        unpack(np.zeros((2, 3), np.uint32), 4, 8)
    with pytest.raises(InvalidInput, match="32-bit words"):
        unpack(np.zeros((2, 3), np.uint64), 4, 8)


def test_the_stream_is_the_one_of_compressed_tensors() -> None:
    helpers = pytest.importorskip("compressed_tensors.compressors.pack_quantized.helpers")
    torch = pytest.importorskip("torch")
    for bits in range(1, 9):
        signed = np.random.default_rng(bits).integers(-(1 << bits - 1), 1 << bits - 1, (5, 77)).astype(np.int8)
        codes = (signed.astype(np.int16) + (1 << bits - 1)).astype(np.uint8)
        theirs = helpers.pack_to_int32(torch.from_numpy(signed), bits).numpy().view(np.uint32)
        assert np.array_equal(pack(codes, bits), theirs)


def test_every_layout_keeps_its_promise() -> None:
    for entry in LAYOUTS:
        layout = entry.load()
        for bits in layout.widths:
            codes = np.random.default_rng(bits).integers(0, 1 << bits, (4, 37)).astype(np.uint8)
            packed = layout.pack(codes, bits)
            assert packed.shape[1] == layout.words(37, bits)
            assert np.array_equal(layout.unpack(packed, bits, 37), codes)


@pytest.mark.parametrize("bits", range(1, 9))
def test_the_first_planes_are_the_narrower_codes(bits: int) -> None:
    layout, columns = LAYOUTS.load("planes"), 77
    codes = np.random.default_rng(bits).integers(0, 1 << bits, (5, columns)).astype(np.uint8)
    packed = layout.pack(codes, bits)
    assert packed.shape == (5, layout.words(columns, bits))
    for narrow in range(1, bits + 1):
        first = packed[:, : layout.words(columns, narrow)]
        assert np.array_equal(layout.unpack(first, narrow, columns), codes >> (bits - narrow))
    with pytest.raises(InvalidInput, match="wrong size"):
        layout.unpack(packed[:, 1:], bits, columns)
    if bits < 8:
        with pytest.raises(InvalidInput, match="do not fit"):
            layout.pack(codes | np.uint8(1 << bits), bits)
