"""Quantize-and-pack and unpack-and-dequantize in numpy: the truth for the fused native kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_kernels.reference import pack, unpack

_Float32 = NDArray[np.float32]


def to_float32(values: NDArray[Any]) -> _Float32:
    """float32 of float32, float16, or uint16 holding bfloat16 bits; exact."""
    if values.dtype == np.uint16:
        return (values.astype(np.uint32) << np.uint32(16)).view(np.float32)
    if values.dtype != np.float16:
        return values.astype(np.float32, copy=False)
    # Shifted into place a half is its value times 2^-112; much faster than numpy's own conversion without F16C.
    bits = np.ascontiguousarray(values).view(np.uint16).astype(np.uint32)
    rest = bits & np.uint32(0x7FFF)
    wide = (rest << np.uint32(13)).view(np.float32) * np.float32(2.0**112)
    special = rest >= 0x7C00
    if special.any():
        wide.view(np.uint32)[special] = 0x7F800000 | ((rest[special] & 0x3FF) << np.uint32(13))
        wide.view(np.uint32)[rest > 0x7C00] |= np.uint32(0x400000)
    wide.view(np.uint32)[...] |= (bits & np.uint32(0x8000)) << np.uint32(16)
    return wide


def per_column(parameters: NDArray[Any], columns: int, group: int) -> _Float32:
    """(rows, groups) parameters repeated to (rows, columns)."""
    return np.repeat(parameters.astype(np.float32), min(group, max(1, columns)), axis=1)[:, :columns]


def codes_of(values: _Float32, inverse: _Float32, zero: _Float32, largest: int) -> NDArray[np.uint8]:
    """clip(rint(x * inverse) + zero, 0, largest), inverse and zero broadcast against x; NaN gives the largest code."""
    with np.errstate(invalid="ignore", over="ignore"):
        work = values * inverse
        np.rint(work, out=work)
        work += zero
    top = np.float32(largest)
    np.maximum(work, 0, out=work)
    clipped: NDArray[np.float32] = np.fmin(work, top)
    return clipped.astype(np.uint8)


def quantize_pack(values: NDArray[Any], inverse: _Float32, zero: _Float32, bits: int, group: int) -> NDArray[np.uint32]:
    """Codes of (rows, columns) values with given (rows, groups) inverse scales and zero points, packed."""
    columns = values.shape[1]
    wide = [per_column(p, columns, group) for p in (inverse, zero)]
    return pack(codes_of(to_float32(values), wide[0], wide[1], (1 << bits) - 1), bits)


def unpack_dequantize(
    words: NDArray[np.uint32],
    scales: NDArray[np.float16],
    zeros: NDArray[np.uint8] | None,
    bits: int,
    group: int,
    columns: int,
) -> _Float32:
    """(code - zero) * scale in float32; without zeros the zero point is 2^(bits-1)."""
    return dequantize_codes(unpack(words, bits, columns), scales, zeros, bits, group)


def dequantize_codes(
    codes: NDArray[np.uint8], scales: NDArray[np.float16], zeros: NDArray[np.uint8] | None, bits: int, group: int
) -> _Float32:
    """(code - zero) * scale in float32 from codes as bytes; without zeros the zero point is 2^(bits-1)."""
    out = codes.astype(np.float32)
    columns = codes.shape[1]
    out -= np.float32(1 << (bits - 1)) if zeros is None else per_column(zeros, columns, group)
    with np.errstate(invalid="ignore"):
        out *= per_column(scales, columns, group)
    return out


#: Numbers that are added up in float32 before a float64 sum takes over.
LANE_BLOCK = 1024


@np.errstate(over="ignore")
def lane_sum(products: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sum over the last axis in sixteen float32 lanes, blocks of LANE_BLOCK in float64: one order for all kernels.

    What lies beyond float32 is infinite, as in native code: no scale holds it, and its caller says so.
    """
    total = np.zeros(products.shape[:-1], np.float64)
    for base in range(0, products.shape[-1], LANE_BLOCK):
        block = products[..., base : base + LANE_BLOCK]
        lanes = np.zeros((*products.shape[:-1], 16), np.float32)
        for start in range(0, block.shape[-1], 16):
            part = block[..., start : start + 16]
            lanes[..., : part.shape[-1]] += part
        eight = lanes[..., :8] + lanes[..., 8:]
        four = eight[..., :4] + eight[..., 4:]
        total += (four[..., 0] + four[..., 2]) + (four[..., 1] + four[..., 3])
    return total.astype(np.float32)
