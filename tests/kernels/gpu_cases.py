"""What the GPU kernels must give, byte for byte, whoever runs them: the twin (test_cuda.py) or a GPU (tests/gpu)."""

from __future__ import annotations

from types import ModuleType
from typing import NamedTuple, Protocol

import numpy as np
from hypothesis import strategies as st

from gpu_kernels import cuda, kernels, reference, reference_quantize


class Run(Protocol):
    """Runs one kernel over numpy arrays, in place."""

    def __call__(
        self, kind: str, dtype: str, bits: int, rows: int, columns: int, group: int, symmetric: int,
        **arrays: np.ndarray | None,
    ) -> None: ...  # fmt: skip


class Shape(NamedTuple):
    bits: int
    dtype: str
    rows: int
    columns: int
    group: int
    symmetric: int
    seed: int


_TYPES = st.sampled_from(cuda.TYPES)
_SEEDS = st.integers(0, 2**32 - 1)


def shapes() -> st.SearchStrategy[Shape]:
    """Any shape, and those of whole units that the fast bodies take."""
    ragged = st.builds(
        Shape,
        st.integers(1, 8),
        _TYPES,
        st.integers(1, 5),
        st.integers(1, 400),
        st.integers(1, 420),
        st.just(0),
        _SEEDS,
    )
    whole = st.builds(
        lambda bits, dtype, rows, span, count, seed: Shape(bits, dtype, rows, 32 * span * count, 32 * span, 0, seed),
        st.integers(1, 8), _TYPES, st.integers(1, 40), st.integers(1, 9), st.integers(1, 9), _SEEDS,
    )  # fmt: skip
    return st.one_of(ragged, whole)


def fused_shapes() -> st.SearchStrategy[Shape]:
    return st.builds(
        lambda bits, dtype, rows, count, group, symmetric, seed: Shape(
            bits, dtype, rows, count * group, group, symmetric, seed
        ),
        st.integers(1, 8), _TYPES, st.integers(1, 5), st.integers(1, 6), st.sampled_from([32, 64, 128, 512, 4096]),
        st.sampled_from([0, 1, 2]), _SEEDS,
    )  # fmt: skip


def floats(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Normal numbers salted with NaN, infinities, denormals, huge values, zeros of both signs and ties."""
    values = (rng.standard_normal(shape) * 3).astype(np.float32)
    salt = np.array([np.nan, np.inf, -np.inf, 1e-40, -1e-45, 3e38, 0.0, -0.0, 0.5, 1.5, -2.5], np.float32)
    where = rng.random(shape) < 0.3
    values[where] = rng.choice(salt, int(where.sum()))
    return values


def as_type(values: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "bf16":
        return (values.view(np.uint32) >> 16).astype(np.uint16)
    with np.errstate(over="ignore"):
        return values.astype({"f32": np.float32, "f16": np.float16}[dtype])


def poisoned(shape: tuple[int, ...], dtype: type[np.generic]) -> np.ndarray:
    """Room for a result in which every byte must be written."""
    return np.full(int(np.prod(shape)) * np.dtype(dtype).itemsize, 0xAB, np.uint8).view(dtype).reshape(shape)


def check_given_scales(run: Run, shape: Shape, truth: ModuleType = reference_quantize) -> None:
    """quantize and dequantize with given scales equal numpy (`truth`), zero points that are no codes included."""
    bits, dtype, rows, columns, group, _, seed = shape
    rng = np.random.default_rng(seed)
    groups = -(-columns // group)
    values = as_type(floats(rng, (rows, columns)), dtype)
    inverse = (rng.standard_normal((rows, groups)) * 2).astype(np.float32)
    zero = rng.integers(0, 1 << bits, (rows, groups)).astype(np.float32)
    odd = np.where(rng.random(zero.shape) < 0.1, rng.choice(np.float32([-3, 300, 1e9, -1e9]), zero.shape), zero)
    for given in (zero, odd.astype(np.float32)):
        words = poisoned((rows, reference.words(columns, bits)), np.uint32)
        run("quantize", dtype, bits, rows, columns, group, 0, x=values, words=words, inverse=inverse, zero=given)
        assert np.array_equal(words, truth.quantize_pack(values, inverse, given, bits, group)), shape
    scales = as_type(rng.standard_normal((rows, groups)).astype(np.float32), "f16")
    for zeros in (None, zero.astype(np.uint8)):
        dense = poisoned((rows, columns), np.float32)
        run("dequantize", dtype, bits, rows, columns, group, 0, words=words, scales=scales, zeros=zeros, dense=dense)
        expected = truth.unpack_dequantize(words, scales, zeros, bits, group, columns)
        assert np.array_equal(dense.view(np.uint32), expected.view(np.uint32)), shape


def check_fused(run: Run, shape: Shape) -> None:
    """rtn equals the CPU's, and reports what cannot be quantized."""
    bits, dtype, rows, columns, group, symmetric, seed = shape
    assert cuda.rtn_takes(columns, group)
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((rows, columns)).astype(np.float32)
    weight[rng.random(weight.shape) < 0.2] = 0
    wide = weight.reshape(-1, group)
    wide *= rng.choice(np.float32([1, 1, 1, 1e-3, 1e-7, 1e-9, 0, 200]), (len(wide), 1))
    np.abs(wide, out=wide, where=rng.random((len(wide), 1)) < 0.1)
    stored = as_type(weight, dtype)
    expected = kernels.rtn_pack(stored, bits, symmetric > 0, group, symmetric == 2)
    assert isinstance(expected, tuple)
    words, scales = poisoned(expected[0].shape, np.uint32), poisoned(expected[1].shape, np.float16)
    zeros = None if symmetric else poisoned(expected[1].shape, np.uint8)
    status = np.zeros(1, np.int32)
    arrays = {"x": stored, "words": words, "scales": scales, "zeros": zeros, "status": status}
    run("rtn", dtype, bits, rows, columns, group, symmetric, **arrays)
    assert status[0] == 0, shape
    assert np.array_equal(words, expected[0]), shape
    assert np.array_equal(scales.view(np.uint16), expected[1].view(np.uint16)), shape
    assert zeros is None or np.array_equal(zeros, expected[2]), shape
    if dtype == "f32":
        stored[0, columns // 2] = np.nan
        run("rtn", dtype, bits, rows, columns, group, symmetric, **arrays)
        assert status[0] == kernels.NOT_FINITE, shape
        stored[:] = 3e38
        status[:] = 0
        run("rtn", dtype, bits, rows, columns, group, symmetric, **arrays)
        assert status[0] == kernels.SCALE_TOO_LARGE, shape
