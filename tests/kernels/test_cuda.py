"""GPU kernels without a GPU: their own indexing on the CPU twin, compilation, the cubin cache."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.core.errors import BitwrightError
from gpu_kernels import build, cuda, kernels, reference, reference_quantize
from gpu_kernels.library import library
from tests.kernels.test_native import as_type, floats

TWIN = pytest.mark.skipif(build.compiler() is None, reason="no C++ compiler here")
NVCC = pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc here")
SHORT = ("BW_ONLY=3",)
KINDS = {"float32": 0, "float16": 1, "bf16": 2}


@pytest.fixture(scope="module", autouse=True)
def built() -> None:
    build.build()
    library.cache_clear()


def twin(
    kind: str, dtype: str, bits: int, rows: int, columns: int, group: int, symmetric: int, **arrays: object
) -> None:
    pointers = {name: a.ctypes.data for name, a in arrays.items() if isinstance(a, np.ndarray)}
    arguments = cuda.Arguments(**pointers, rows=rows, columns=columns, group=group, symmetric=symmetric)
    native = library()
    assert native is not None
    native.bw_twin(cuda.KINDS.index(kind), KINDS[dtype], bits, ctypes.byref(arguments))


@TWIN
@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 8), st.integers(1, 5), st.integers(1, 400), st.integers(1, 420), st.sampled_from(sorted(KINDS)),
    st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_the_twin_equals_numpy(bits: int, rows: int, columns: int, group: int, dtype: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = -(-columns // group)
    values = as_type(floats(rng, (rows, columns)), dtype)
    inverse = (rng.standard_normal((rows, groups)) * 2).astype(np.float32)
    zero = rng.integers(0, 1 << bits, (rows, groups)).astype(np.float32)
    words = np.full((rows, reference.words(columns, bits)), 0xDEADBEEF, np.uint32)
    twin("quantize", dtype, bits, rows, columns, group, False, x=values, words=words, inverse=inverse, zero=zero)
    assert np.array_equal(words, reference_quantize.quantize_pack(values, inverse, zero, bits, group))
    scales = as_type(rng.standard_normal((rows, groups)).astype(np.float32), "float16")
    for zeros in (None, zero.astype(np.uint8)):
        dense = np.full((rows, columns), np.nan, np.float32)
        twin(
            "dequantize", dtype, bits, rows, columns, group, False, words=words, scales=scales, zeros=zeros, dense=dense
        )
        expected = reference_quantize.unpack_dequantize(words, scales, zeros, bits, group, columns)
        assert np.array_equal(dense.view(np.uint32), expected.view(np.uint32))


@TWIN
@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 8), st.sampled_from([0, 1, 2]), st.integers(1, 5), st.integers(1, 6),
    st.sampled_from([32, 64, 128, 512, 4096]),
    st.sampled_from(sorted(KINDS)), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_the_fused_twin_equals_the_cpu(
    bits: int, symmetric: int, rows: int, count: int, group: int, dtype: str, seed: int
) -> None:
    columns = group * count
    assert cuda.rtn_takes(columns, group)
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((rows, columns)).astype(np.float32)
    weight[rng.random(weight.shape) < 0.2] = 0
    stored = as_type(weight, dtype)
    expected = kernels.rtn_pack(stored, bits, symmetric > 0, group, symmetric == 2)
    assert isinstance(expected, tuple)
    words = np.zeros_like(expected[0])
    scales, zeros = np.zeros((rows, count), np.float16), None if symmetric else np.zeros((rows, count), np.uint8)
    status = np.zeros(1, np.int32)
    arrays = {"x": stored, "words": words, "scales": scales, "zeros": zeros, "status": status}
    twin("rtn", dtype, bits, rows, columns, group, symmetric, **arrays)
    assert status[0] == 0
    assert np.array_equal(words, expected[0])
    assert np.array_equal(scales.view(np.uint16), expected[1].view(np.uint16))
    assert symmetric or np.array_equal(zeros, expected[2])
    if dtype == "float32":
        stored[0, columns // 2] = np.nan
        twin("rtn", dtype, bits, rows, columns, group, symmetric, **arrays)
        assert status[0] == kernels.NOT_FINITE
        stored[:] = 3e38
        status[:] = 0
        twin("rtn", dtype, bits, rows, columns, group, symmetric, **arrays)
        assert status[0] == kernels.SCALE_TOO_LARGE


def test_groups_that_cross_a_block_are_not_taken() -> None:
    assert not any(cuda.rtn_takes(*case) for case in ((96, 96), (100, 32), (64, 16), (8192, 8192)))


@NVCC
@pytest.mark.parametrize("bits", [1, 3])
@pytest.mark.parametrize("arch", [80, 90])
def test_kernels_compile_without_spills(arch: int, bits: int) -> None:
    found = cuda.usage(cuda.Compiler("nvcc", shutil.which("nvcc")), arch, (f"BW_ONLY={bits}",))
    assert set(found) == {cuda.kernel_name(k, t, bits) for k in cuda.KINDS for t in cuda.TYPES}
    assert all(need["spills"] == 0 for need in found.values()), found
    # 65,536 registers of a multiprocessor hold 6 blocks of 128 threads with 80 each, enough to hide memory.
    assert all(need["registers"] <= 80 for need in found.values()), found


@NVCC
@pytest.mark.parametrize("bits", [1, 3])
def test_no_multiplication_is_fused_with_an_addition(bits: int, tmp_path: Path) -> None:
    nvcc = shutil.which("nvcc")
    assert nvcc is not None
    out = tmp_path / "kernels.ptx"
    source = build.SOURCES / "kernels.cu"
    command = [nvcc, "-O3", *cuda.OPTIONS, f"-DBW_ONLY={bits}", "-arch=sm_90", "-ptx", "-o", str(out), str(source)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    text = out.read_text()
    assert "mul.rn.f32" in text
    assert "fma." not in text
    assert "div.approx" not in text
    assert ".ftz" not in text


@NVCC
def test_a_damaged_cubin_is_compiled_again_and_never_given_out(tmp_path: Path) -> None:
    compiler = cuda.Compiler("nvcc", shutil.which("nvcc"))
    made = cuda.cubin(90, compiler, folder=tmp_path, defines=SHORT)
    assert made.startswith(b"\x7fELF")
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    broken = cuda.Compiler("nvcc", "/nowhere/nvcc")
    assert cuda.cubin(90, broken, folder=tmp_path, defines=SHORT) == made
    for damaged in (whole[:-1], whole[:100] + b"x" + whole[101:], b""):
        file.write_bytes(damaged)
        with pytest.raises(BitwrightError, match="could not be compiled"):
            cuda.cubin(90, broken, folder=tmp_path, defines=SHORT)
    assert cuda.cubin(90, compiler, folder=tmp_path, defines=SHORT) == made
    assert file.read_bytes() == whole
    assert list(tmp_path.iterdir()) == [file]
