"""GPU kernels without a GPU: their own indexing on the CPU twin, compilation, the cubin cache."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from bitwright.core.errors import BitwrightError
from gpu_kernels import build, cuda
from gpu_kernels.library import library
from tests.kernels.gpu_cases import Shape, check_fused, check_given_scales, fused_shapes, shapes

TWIN = pytest.mark.skipif(build.compiler() is None, reason="no C++ compiler here")
NVCC = pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc here")
SHORT = ("BW_ONLY=3",)


@pytest.fixture(scope="module", autouse=True)
def built() -> None:
    build.build()
    library.cache_clear()


def twin(
    kind: str, dtype: str, bits: int, rows: int, columns: int, group: int, symmetric: int, **arrays: np.ndarray | None
) -> None:
    pointers = {name: a.ctypes.data for name, a in arrays.items() if a is not None}
    arguments = cuda.Arguments(**pointers, rows=rows, columns=columns, group=group, symmetric=symmetric)
    native = library()
    assert native is not None
    native.bw_twin(cuda.KINDS.index(kind), cuda.TYPES.index(dtype), bits, ctypes.byref(arguments))


@TWIN
@settings(max_examples=60, deadline=None)
@given(shapes())
def test_the_twin_equals_numpy(shape: Shape) -> None:
    check_given_scales(twin, shape)


@TWIN
@settings(max_examples=60, deadline=None)
@given(fused_shapes())
def test_the_fused_twin_equals_the_cpu(shape: Shape) -> None:
    check_fused(twin, shape)


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
