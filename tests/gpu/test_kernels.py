"""The GPU kernels on a GPU: the CPU's bytes, and typed errors for what they do not take."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from bitwright.core.errors import InvalidInput, OutOfResources
from gpu_kernels import cuda, kernels, reference_quantize
from gpu_kernels.gpu import Gpu, Memory
from tests.kernels.gpu_cases import Shape, as_type, check_fused, check_given_scales, fused_shapes, poisoned, shapes


@pytest.fixture(scope="module")
def gpu() -> Gpu:
    return Gpu()


@settings(max_examples=400, deadline=None)
@given(shape=shapes())
def test_the_gpu_equals_numpy(gpu: Gpu, shape: Shape) -> None:
    check_given_scales(gpu.run, shape)


@settings(max_examples=400, deadline=None)
@given(shape=fused_shapes())
def test_the_fused_kernels_equal_the_cpu(gpu: Gpu, shape: Shape) -> None:
    check_fused(gpu.run, shape)


@pytest.mark.parametrize(("bits", "dtype"), [*((bits, "bf16") for bits in range(1, 9)), (3, "f16"), (3, "f32")])
def test_more_blocks_than_an_h200_holds_at_once(gpu: Gpu, bits: int, dtype: str) -> None:
    """Large matrices whose last block is partly empty, against the CPU's native kernels."""
    check_given_scales(gpu.run, Shape(bits, dtype, 2111, 4096 + 32, 32 * 43, 0, bits), kernels)
    for symmetric in (0, 1, 2):
        check_fused(gpu.run, Shape(bits, dtype, 2111, 4096 + 128, 128, symmetric, bits))


def test_values_at_odd_addresses_take_the_other_body(gpu: Gpu) -> None:
    rng = np.random.default_rng(1)
    values = as_type(rng.standard_normal((5, 128)).astype(np.float32), "bf16")
    inverse, zero = np.full((5, 1), 3, np.float32), np.full((5, 1), 8, np.float32)
    words = poisoned((5, 16), np.uint32)
    held = [Memory(array.nbytes + 16) for array in (values, words, inverse, zero)]
    for memory, array, at in zip(held, (values, words, inverse, zero), (2, 0, 0, 0), strict=True):
        memory.write(array, at=at)
    pointers = {name: memory.address for name, memory in zip(("x", "words", "inverse", "zero"), held, strict=True)}
    pointers["x"] += 2
    arguments = cuda.Arguments(**pointers, rows=5, columns=128, group=128, symmetric=0)
    gpu.launch("quantize", "bf16", 4, arguments)
    gpu.stream.sync()
    held[1].read(words)
    assert np.array_equal(words, reference_quantize.quantize_pack(values, inverse, zero, 4, 128))
    with pytest.raises(InvalidInput, match="fused kernel"):
        gpu.launch("rtn", "bf16", 4, arguments)
    for memory in held:
        memory.free()


def test_what_the_fused_kernel_does_not_take_and_a_full_gpu_are_typed_errors(gpu: Gpu) -> None:
    with pytest.raises(InvalidInput, match="fused kernel"):
        gpu.launch("rtn", "bf16", 4, cuda.Arguments(x=256, rows=1, columns=96, group=96))
    with pytest.raises(OutOfResources, match="no room"):
        Memory(1 << 50)
