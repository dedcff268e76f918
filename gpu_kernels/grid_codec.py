"""Rotated weights as points of normal grids (HIGGS, core.grid_format): the family `grid` of gpu_kernels.blocks.

The rotation of a group: its input i times sign(i), then a normalised Hadamard matrix over the largest power of two of
inputs that is left, again over the next (192 inputs: 128 and 64). Signs are those of a fixed sequence, so that layers
that share their inputs share the rotation and nothing is stored. It is orthogonal: y = W x is (R W')' (R x).

Codes are the nearest points to w / s, s being the root mean square of the group's rotated weights w. The paper stores
that norm. Points that lose least squared error shrink what they stand for, though, by 1 - D with D the grid's
distortion, and shrinkage adds up over a model (research/09, conclusion 3): stored is the float16 scale with w'q = w'w,
within GAIN_LIMITS of s. It costs nothing, makes the error D / (1 - D), and makes it the unbiased one that the linearity
theorem is about. KL of llama-stdlib against the norm, everywhere in one format: 0.74 at 2 bits, 0.81 at 3, 0.90 at 4.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.core.block_format import BlockFormat
from bitwright.core.grid_format import SCALE_BYTES, GridFormat
from gpu_kernels.gaussian_grids import grid
from gpu_kernels.reference_quantize import lane_sum

_Float32 = NDArray[np.float32]
Bytes = NDArray[np.uint8]
#: Smallest positive float16, the scale of groups of zeros.
TINY = np.float32(2.0**-24)
_MOST = np.float32(65504.0)
#: As in quantizers.rtn.
GAIN_LIMITS = (0.7, 1.5)
#: Weights handled at once.
_BLOCK = 1 << 21


@cache
def signs(length: int) -> _Float32:
    """float32 (length,) of +-1: minus where the highest bit of splitmix64's i-th output, from state 0, is set."""
    z = np.arange(1, length + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.where((z ^ (z >> np.uint64(31))) >> np.uint64(63), np.float32(-1), np.float32(1)).astype(np.float32)


def pieces(length: int) -> Iterator[tuple[int, int]]:
    """(first, last) of the powers of two that a group's length is the sum of, largest first."""
    first = 0
    for bit in range(length.bit_length() - 1, -1, -1):
        if length >> bit & 1:
            yield first, first + (1 << bit)
            first += 1 << bit


def hadamard(x: _Float32) -> _Float32:
    """float32 (rows, n) times the Hadamard matrix of Sylvester, normalised; n a sum of powers of two, see `pieces`."""
    found = np.empty_like(x)
    for first, last in pieces(x.shape[1]):
        part, width, half = x[:, first:last], last - first, 1
        while half < width:
            pairs = part.reshape(len(x), width // (2 * half), 2, half)
            part = np.concatenate([pairs[:, :, :1] + pairs[:, :, 1:], pairs[:, :, :1] - pairs[:, :, 1:]], axis=2)
            half *= 2
        np.multiply(part.reshape(len(x), width), np.float32(1 / np.sqrt(width)), out=found[:, first:last])
    return found


def rotate(weight: _Float32, group: int) -> _Float32:
    """float32 (rows, inputs) rotated along its inputs, group by group. The same for activations."""
    found, sign = np.empty_like(weight), signs(group)
    for first in range(0, weight.shape[1], group):
        part = weight[:, first : first + group]
        found[:, first : first + group] = hadamard(part * sign[: part.shape[1]])
    return found


class GridCodec:
    """See gpu_kernels.blocks.Codec; nothing lies beside the blocks. unshrink=False stores s, as the paper does."""

    def quantize(
        self, weight: _Float32, format: BlockFormat, *, unshrink: bool = True, **options: bool
    ) -> tuple[Bytes, None]:
        assert isinstance(format, GridFormat)
        rows, columns = weight.shape
        data = np.empty((rows, format.row_bytes(columns)), np.uint8)
        step = max(1, _BLOCK // max(1, columns))
        for start in range(0, rows, step):
            turned, at = rotate(weight[start : start + step], format.block), 0
            for first, last in format.spans(columns):
                stored = _encode(turned[:, first:last], format, unshrink)
                data[start : start + step, at : at + stored.shape[1]] = stored
                at += stored.shape[1]
        return data, None

    def dequantize(self, blocks: Bytes, scales: _Float32 | None, format: BlockFormat, columns: int) -> _Float32:
        assert isinstance(format, GridFormat)
        found, at = np.empty((blocks.shape[0], columns), np.float32), 0
        for first, last in format.spans(columns):
            size = format.group_bytes(last - first)
            found[:, first:last] = _decode(blocks[:, at : at + size], format, last - first)
            at += size
        return found

    def largest(self, format: BlockFormat) -> float:
        """float16 scales end at 65504, and no root mean square is above the largest weight."""
        return 65504.0


def _encode(turned: _Float32, format: GridFormat, unshrink: bool) -> Bytes:
    """uint8 (rows, bytes) of one rotated group."""
    rows, length = turned.shape
    power = lane_sum(turned * turned)
    scale = np.maximum(np.sqrt(power / np.float32(length)), TINY).astype(np.float16)
    count = format.codes(length)
    scaled = np.zeros((rows, count * format.dimension), np.float32)
    np.divide(turned, scale.astype(np.float32)[:, None], out=scaled[:, :length])
    codes = nearest(format.layout, scaled.reshape(-1, format.dimension)).reshape(rows, count)
    points = grid(format.layout)[codes].reshape(rows, count * format.dimension)[:, :length]
    along = lane_sum(turned * points)
    # Groups of nearly nothing have no gain to speak of.
    gain = np.divide(power, along * scale.astype(np.float32), out=np.ones(rows, np.float32), where=along > TINY)
    better = np.clip(scale * np.clip(gain, *GAIN_LIMITS), TINY, _MOST)
    stored = (better if unshrink else scale).astype("<f2")
    stream = (codes[:, :, None] >> np.arange(format.code_bits, dtype=np.uint16)) & np.uint16(1)
    packed = np.packbits(stream.reshape(rows, -1).astype(np.uint8), axis=1, bitorder="little")
    return np.concatenate([stored[:, None].view(np.uint8), packed], axis=1)


def _decode(stored: Bytes, format: GridFormat, length: int) -> _Float32:
    """float32 (rows, length) weights of one group: the Hadamard matrix is its own inverse."""
    rows, count = stored.shape[0], format.codes(length)
    scale = np.ascontiguousarray(stored[:, :SCALE_BYTES]).view("<f2").astype(np.float32)
    stream = np.unpackbits(stored[:, SCALE_BYTES:], axis=1, bitorder="little")[:, : count * format.code_bits]
    places = np.uint16(1) << np.arange(format.code_bits, dtype=np.uint16)
    codes = (stream.reshape(rows, count, format.code_bits) * places).sum(axis=2, dtype=np.uint16)
    points = grid(format.layout)[codes].reshape(rows, count * format.dimension)[:, :length]
    return np.asarray(hadamard(np.ascontiguousarray(points)) * scale * signs(length))


def nearest(layout: str, x: _Float32) -> NDArray[np.uint16]:
    """uint16 (n,) numbers of the grid's points nearest to float32 (n, p)."""
    points = grid(layout)
    if points.shape[1] == 1:
        middles = (points[1:, 0] + points[:-1, 0]) * np.float32(0.5)
        return np.searchsorted(middles, x[:, 0]).astype(np.uint16)
    return _tree(layout).query(x)[1].astype(np.uint16)  # type: ignore[no-any-return]


@cache
def _tree(layout: str) -> Any:
    from scipy.spatial import cKDTree

    return cKDTree(grid(layout))
