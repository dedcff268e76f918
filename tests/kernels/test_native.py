"""Native kernels, scalar, AVX2 and AVX-512, against numpy: byte for byte, on every kind of float and every shape."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.core.errors import InvalidInput, InvalidModel, JobFailed, Unsupported
from bitwright.core.formats import parse_format
from gpu_kernels import build, kernels, reference, reference_quantize, threads
from gpu_kernels.library import backend, library
from quantizers import rtn
from quantizers.base import Quantized
from tests.kernels.gpu_cases import as_type, floats

NATIVE = pytest.mark.skipif(build.compiler() is None, reason="no C++ compiler here")
#: The scalar build, AVX2 and the best that there is.
SPEEDS = (0, 2, 1)


@pytest.fixture(scope="module", autouse=True)
def built() -> None:
    build.build()
    library.cache_clear()


@NATIVE
@settings(max_examples=120, deadline=None)
@given(
    st.integers(1, 8), st.integers(1, 4), st.integers(1, 300), st.integers(1, 320),
    st.sampled_from(["f32", "f16", "bf16"]), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_native_equals_numpy(bits: int, rows: int, columns: int, group: int, kind: str, seed: int) -> None:
    assert library() is not None
    rng = np.random.default_rng(seed)
    groups = -(-columns // group)
    codes = rng.integers(0, 1 << bits, (rows, columns)).astype(np.uint8)
    packed = reference.pack(codes, bits)
    values = as_type(floats(rng, (rows, columns)), kind)
    inverse = (rng.standard_normal((rows, groups)) * 2).astype(np.float32)
    zero = rng.integers(0, 1 << bits, (rows, groups))
    scales = as_type(rng.standard_normal((rows, groups)).astype(np.float32) * 1e-4, "f16")
    quantized = reference_quantize.quantize_pack(values, inverse, zero.astype(np.float32), bits, group)
    dense = {
        z is None: reference_quantize.unpack_dequantize(packed, scales, z, bits, group, columns)
        for z in (None, zero.astype(np.uint8))
    }
    for fast in SPEEDS:
        assert np.array_equal(kernels.pack(codes, bits, fast=fast), packed)
        assert np.array_equal(kernels.unpack(packed, bits, columns, fast=fast), codes)
        got = kernels.quantize_pack(values, inverse, zero.astype(np.float32), bits, group, fast=fast)
        assert np.array_equal(got, quantized)
        for z in (None, zero.astype(np.uint8)):
            again = kernels.unpack_dequantize(packed, scales, z, bits, group, columns, fast=fast)
            assert np.array_equal(again.view(np.uint32), dense[z is None].view(np.uint32))
            expanded = kernels.dequantize_codes(codes, scales, z, bits, group, fast=fast)
            assert np.array_equal(expanded.view(np.uint32), dense[z is None].view(np.uint32))
        if kind != "f32":
            wide = reference_quantize.to_float32(values)
            assert np.array_equal(kernels.widen(values, fast=fast).view(np.uint32), wide.view(np.uint32))


@NATIVE
@settings(max_examples=120, deadline=None)
@given(
    st.integers(2, 8), st.booleans(), st.integers(1, 4), st.integers(1, 200), st.integers(1, 220),
    st.sampled_from([1.0, 1e-7, 1e-5, 2000.0]), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_native_rtn_equals_numpy(
    bits: int, symmetric: bool, rows: int, columns: int, group: int, spread: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    weight = (rng.standard_normal((rows, columns)) * spread).astype(np.float32)
    weight[rng.random(weight.shape) < 0.2] = 0.0
    weight[rng.random(weight.shape) < 0.1] = -0.0
    weight[rng.random(weight.shape) < 0.1] = np.float32(0.25 * spread)
    format = parse_format(f"int{bits}{'-sym' if symmetric else ''}-g{group}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rtn, "rtn_pack", lambda *a, **k: None)
        expected = rtn.QUANTIZER.quantize(weight, format)
    assert isinstance(expected, Quantized)
    for fast in SPEEDS:
        got = kernels.rtn_rows(weight, bits, symmetric, group, rtn.corrects(expected.format), fast=fast)
        assert isinstance(got, tuple)
        assert np.array_equal(got[0], expected.codes)
        assert np.array_equal(got[1].view(np.uint16), expected.scales.view(np.uint16))
        assert (got[2] is None and expected.zeros is None) or np.array_equal(got[2], expected.zeros)


@NATIVE
def test_every_half_converts_like_numpy() -> None:
    """All 65536 halves as inputs, and as scales."""
    halves = np.arange(65536, dtype=np.uint16).view(np.float16).reshape(256, 256)
    inverse, zero = np.full((256, 1), 3.7, np.float32), np.full((256, 1), 100, np.float32)
    expected = reference_quantize.quantize_pack(halves, inverse, zero, 8, 256)
    words = np.full((65536, 1), 3, np.uint32)
    scales = halves.reshape(-1, 1)
    for fast in SPEEDS:
        assert np.array_equal(kernels.quantize_pack(halves, inverse, zero, 8, 256, fast=fast), expected)
        got = kernels.unpack_dequantize(words, scales, None, 2, 1, 1, fast=fast)
        assert np.array_equal(got, reference_quantize.unpack_dequantize(words, scales, None, 2, 1, 1), equal_nan=True)
        wide = kernels.widen(halves, fast=fast)
        assert np.array_equal(wide, halves.astype(np.float32), equal_nan=True)
        assert np.array_equal(wide.view(np.uint32), reference_quantize.to_float32(halves).view(np.uint32))


@NATIVE
@pytest.mark.parametrize("offset", range(1, 8))
def test_unaligned_and_strided_buffers(offset: int) -> None:
    raw = np.random.default_rng(0).integers(0, 8, 10_000).astype(np.uint8)
    codes = raw[offset : offset + 3 * 77].reshape(3, 77)
    assert np.array_equal(kernels.pack(codes, 3), reference.pack(codes, 3))
    strided = raw[: 6 * 77].reshape(6, 77)[::2, ::-1]
    assert np.array_equal(kernels.pack(strided, 3), reference.pack(strided, 3))
    weight = np.random.default_rng(1).standard_normal((6, 70)).astype(np.float32)
    part = weight[::2, offset:]
    value = rtn.QUANTIZER.quantize(part, parse_format("int4-g32"))
    assert np.array_equal(
        value.dequantize(), rtn.QUANTIZER.quantize(part.copy(), parse_format("int4-g32")).dequantize()
    )


@NATIVE
@pytest.mark.parametrize(("bad", "error"), [(np.nan, InvalidModel), (-np.inf, InvalidModel), (1e9, Unsupported)])
@pytest.mark.parametrize("at", [0, 8, 31, 69])
def test_native_code_reports_what_numpy_refuses(bad: float, error: type[Exception], at: int) -> None:
    weight = np.ones((3, 70), np.float32)
    weight[1, at] = bad
    status = kernels.rtn_rows(weight, 4, True, 64, True)
    assert status == (kernels.NOT_FINITE if error is InvalidModel else kernels.SCALE_TOO_LARGE)
    with pytest.raises(error):
        rtn.QUANTIZER.quantize(weight, parse_format("int4-sym-g64"), name="w")


ONES = np.ones((2, 8), np.float32)


@pytest.mark.parametrize(
    ("values", "inverse", "bits", "group"),
    [
        (np.ones((2, 8), np.float64), np.ones((2, 1), np.float32), 4, 8),
        (np.ones(8, np.float32), np.ones((2, 1), np.float32), 4, 8),
        (ONES, np.ones((2, 2), np.float32), 4, 8),
        (ONES, np.ones((2, 1), np.float64), 4, 8),
        (ONES, np.ones((2, 1), np.float32), 9, 8),
        (ONES, np.ones((2, 1), np.float32), 4, 0),
    ],
)
def test_wrong_buffers_are_refused(values: np.ndarray, inverse: np.ndarray, bits: int, group: int) -> None:
    with pytest.raises(InvalidInput):
        kernels.quantize_pack(values, inverse, np.zeros((2, 1), np.float32), bits, group)


def test_zero_points_with_a_fraction_are_refused() -> None:
    """Vectors rounded the sum with one, scalar code and numpy cut it off: found by the GPU, which did as numpy."""
    one = np.ones((2, 1), np.float32)
    for zero in (0.5, np.nan):
        with pytest.raises(InvalidInput, match="whole numbers"):
            kernels.quantize_pack(ONES, one, zero * one, 4, 8)
    far = np.float32([[-3], [1e9]])
    assert np.array_equal(
        kernels.quantize_pack(ONES, one, far, 4, 8), reference_quantize.quantize_pack(ONES, one, far, 4, 8)
    )


def test_wrong_words_are_refused() -> None:
    words, scales = np.zeros((2, 3), np.uint32), np.ones((2, 1), np.float16)
    for packed, s, bits, columns in [
        (words, scales, 4, 8),
        (words.astype(np.uint64), scales, 4, 24),
        (words, scales.astype(np.float32), 4, 24),
        (words, np.ones((2, 3), np.float16), 4, 24),
    ]:
        with pytest.raises(InvalidInput):
            kernels.unpack_dequantize(packed, s, None, bits, 64, columns)


@NATIVE
@pytest.mark.parametrize("symmetric", [False, True])
def test_room_of_another_size_type_or_stride_is_refused_and_left_alone(symmetric: bool) -> None:
    weight = np.ones((4, 96), np.float32)
    words, scales, zeros = kernels.packed_rows(4, 96, 3, symmetric, 32)
    for room in (
        (words[:3], scales, zeros),
        (words[:, :8], scales, zeros),
        (words.view(np.int32), scales, zeros),
        (words, scales[:, :2], zeros),
        (np.repeat(words, 2, axis=0)[::2], scales, zeros),
        (words, scales, np.zeros((4, 3), np.uint8) if symmetric else None),
    ):
        for array in room:
            if array is not None:
                array[...] = 7
        with pytest.raises(InvalidInput, match="no room"):
            kernels.rtn_pack(weight, 3, symmetric, 32, False, into=room)
        assert all(array is None or (array == 7).all() for array in room)
    assert kernels.rtn_pack(weight, 3, symmetric, 32, False, into=(words, scales, zeros)) == (words, scales, zeros)


def test_a_group_far_longer_than_the_row_costs_nothing() -> None:
    one = np.ones((2, 1), np.float32)
    expected = reference_quantize.quantize_pack(ONES, one, one, 4, 10**9)
    assert np.array_equal(kernels.quantize_pack(ONES, one, one, 4, 10**9), expected)


#: A matrix in every kind of format: neither its bytes nor its values may depend on what does the work.
_EVERYWHERE = """
import hashlib, numpy as np
from bitwright.core.formats import parse_format
from gpu_kernels.library import backend
from quantizers.rtn import QUANTIZER
rng, found = np.random.default_rng(0), hashlib.sha256()
weight = (rng.standard_normal((5, 300)) * 0.02).astype(np.float32)
weight[1], weight[2, 64:128] = 0, 1e-7
names = "int1-g64 int1-sym-g64 sign-g32 int2-sym-g64 int3-sym-g32 int4-g64 int4-sym-channel int8-g7 int4-g64-bf16 "
names += "int-l3-g64 int4-tensor fp8-e4m3 fp8-e5m2 mxfp4 mxfp8 nvfp4 nf4 q4_0 q5_1 q8_0 q2_k q3_k q4_k q6_k "
names += "iq4_nl iq4_xs bf16"
for name in names.split():
    made = QUANTIZER.quantize(weight, parse_format(name))
    for array in (*made.arrays(), made.dequantize()):
        found.update(np.ascontiguousarray(array).tobytes())
print(backend(), found.hexdigest())
"""


def test_without_avx512_avx2_or_native_code_the_bytes_are_the_same() -> None:
    root, found = Path(__file__).parents[2], {}
    for setting in ("0", "scalar", "avx2", "1"):
        done = subprocess.run(
            [sys.executable, "-c", _EVERYWHERE], env={**os.environ, "BITWRIGHT_NATIVE": setting}, cwd=root,
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        found[setting] = done.stdout.split()
    assert found["0"][0] == "numpy"
    assert build.compiler() is None or found["scalar"][0] == "scalar"
    assert found["avx2"][0] in ("avx2", "scalar", "numpy")
    assert len({digest for _, digest in found.values()}) == 1


def test_no_compiler_builds_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(build, "OUTPUT", tmp_path)
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert build.build() is None
    assert build.main() == 0
    assert list(tmp_path.iterdir()) == []


def test_a_failing_compiler_is_a_typed_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any) -> None:
    monkeypatch.setattr(build, "OUTPUT", tmp_path)
    monkeypatch.setenv("CXX", "false")
    with pytest.raises(JobFailed, match="could not be compiled"):
        build.build()
    assert build.main() == 0
    assert "numpy does the work" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_backend_says_what_works() -> None:
    assert backend() in ("avx512", "avx2", "scalar", "numpy")


@NATIVE
@pytest.mark.parametrize("fast", SPEEDS)
@pytest.mark.parametrize("at", [0, 31, 500, 1023])
@pytest.mark.parametrize("bits", range(1, 8))
def test_a_code_too_large_is_found_wherever_it_stands(bits: int, at: int, fast: int) -> None:
    codes = np.zeros((3, 1024), np.uint8)
    codes[1, at] = 1 << bits
    with pytest.raises(InvalidInput, match="does not fit its width"):
        kernels.pack(codes, bits, fast=fast)


@NATIVE
@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=700), st.integers(0, 2**64 - 1), st.integers(0, 10_000))
def test_checksums_are_equal_everywhere_and_see_every_change(data: bytes, mark: int, where: int) -> None:
    array = np.frombuffer(data, np.uint8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "library", lambda: None)
        expected = kernels.checksum(array, mark)
    assert {kernels.checksum(array, mark, fast=fast) for fast in SPEEDS} == {expected}
    if data:
        changed = array.copy()
        changed[where % array.size] ^= 1 << (where % 8)
        assert kernels.checksum(changed, mark) != expected
    assert kernels.checksum(np.append(array, np.uint8(0)), mark) != expected


@NATIVE
@settings(max_examples=80, deadline=None)
@given(
    st.integers(2, 8), st.booleans(), st.integers(1, 4), st.integers(1, 300), st.integers(1, 220),
    st.sampled_from(["f32", "f16", "bf16"]), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_fused_rounding_and_packing_equals_its_parts(
    bits: int, symmetric: bool, rows: int, columns: int, group: int, kind: str, seed: int
) -> None:
    stored = as_type(np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32), kind)
    weight = reference_quantize.to_float32(stored)
    for correct in (False, True):
        expected = kernels.rtn_rows(weight, bits, symmetric, group, correct, fast=False)
        assert isinstance(expected, tuple)
        for fast in SPEEDS:
            found = kernels.rtn_pack(stored, bits, symmetric, group, correct, fast=fast)
            assert isinstance(found, tuple)
            assert np.array_equal(found[0], reference.pack(expected[0], bits))
            assert np.array_equal(found[1].view(np.uint16), expected[1].view(np.uint16))
            assert (found[2] is None) == symmetric
            assert found[2] is None or np.array_equal(found[2], expected[2])


@NATIVE
def test_rows_are_shared_among_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = np.random.default_rng(0).standard_normal((1100, 2048), dtype=np.float32)
    one = kernels.rtn_pack(weight, 3, False, 64, False)
    monkeypatch.setattr(threads, "threads", lambda: 4)
    many = kernels.rtn_pack(weight, 3, False, 64, False)
    assert isinstance(one, tuple)
    assert isinstance(many, tuple)
    assert all(np.array_equal(a, b) for a, b in zip(one, many, strict=True))
    weight[1000, 5] = np.nan
    assert kernels.rtn_pack(weight, 3, False, 64, False) == kernels.NOT_FINITE


def at_odd_address(array: np.ndarray) -> np.ndarray:
    """The same numbers, one byte behind an aligned address."""
    room = np.zeros(array.nbytes + 65, np.uint8)
    start = -room.ctypes.data % 64 + 1
    moved = room[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    moved[:] = array
    assert array.itemsize == 1 or not moved.flags.aligned
    return moved


@NATIVE
@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize(
    "place", [at_odd_address, lambda a: np.asfortranarray(a), lambda a: np.repeat(a, 2, 1)[:, ::2]]
)
def test_buffers_at_any_address_and_stride_give_the_same_bytes(bits: int, place: Any) -> None:
    rng = np.random.default_rng(bits)
    codes = rng.integers(0, 1 << bits, (6, 200)).astype(np.uint8)
    weight = rng.standard_normal((6, 200)).astype(np.float32)
    scales = rng.standard_normal((6, 4)).astype(np.float16)
    packed = kernels.pack(codes, bits)
    assert np.array_equal(kernels.pack(place(codes), bits), packed)
    assert np.array_equal(kernels.unpack(place(packed), bits, 200), codes)
    dense = kernels.unpack_dequantize(packed, scales, None, bits, 64, 200)
    assert np.array_equal(kernels.unpack_dequantize(place(packed), place(scales), None, bits, 64, 200), dense)
    inverse, zero = np.full((6, 4), 3, np.float32), np.zeros((6, 4), np.float32)
    quantized = kernels.quantize_pack(weight, inverse, zero, bits, 64)
    assert np.array_equal(kernels.quantize_pack(place(weight), place(inverse), place(zero), bits, 64), quantized)
    if bits > 1:
        one, two = (kernels.rtn_pack(w, bits, True, 64, False) for w in (weight, place(weight)))
        assert isinstance(one, tuple)
        assert isinstance(two, tuple)
        assert np.array_equal(one[0], two[0])
