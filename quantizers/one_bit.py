"""Levels {0, s} of one bit: which weights of a group stand at s, and s. native/one_bit.inl gives the same bytes.

The least-squares s is the mean of the weights beyond s / 2, on the better side (Lloyd's condition, IEEE Trans. Inf.
Theory 28, 1982). Two starts on each side, at 0.625 and 1.5 of the group's root mean square (the fixed points of
uniform, normal and Laplace weights lie at 0.58, 0.61 and 0.71 of it, those of an outlier beyond), of which the mean
of the one with the largest (sum)^2 / count sets the threshold. Against the best s of all (found by sorting), groups
of 64 lose 1.0007 times as much on normal weights, 1.0033 and 1.0036 times on Laplace and Student-t ones (5 degrees of
freedom).

All sums are of whole numbers, so that no order of adding matters: positions in 1/4095 of the group's largest weight,
and for the search in about 1/16 of its root mean square, in bytes. Floats are single IEEE operations in the order
written.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quantizers.base import BLOCK_ELEMENTS

#: Positions reach this far: sums over 128 weights, squares too, stay within 32 bits.
REACH = np.float32(4095)
#: Bytes in a root mean square, where both searches start, and the last byte.
STEPS, STARTS, LAST = 16, (10, 24), 127
#: Smaller groups are held to this; REACH / it is finite.
_LEAST = np.float32(2.0**-100)
_Float32 = NDArray[np.float32]
_Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class OneBit:
    """Of groups (rows, groups, size). threshold: positions beyond it stand at the level; below: it is negative.

    mean: of the weights beyond, in magnitude: the least-squares level. level: the one with w'q = w'w (quantizers.rtn).
    """

    threshold: _Int64
    below: NDArray[np.bool_]
    mean: _Float32
    level: _Float32

    def codes(self, grouped: _Float32, held: NDArray[np.bool_], symmetric: bool) -> NDArray[np.uint8]:
        """uint8 codes of the same groups; not `held`: all weights of the group are 0."""
        out = np.empty(grouped.shape, np.uint8)
        flip = (self.below & held) | symmetric  # code 0 is then the level
        for part in pieces(grouped):
            chosen = _positions(grouped, part, self.below) > np.where(held, self.threshold, REACH)[..., None]
            out[..., part] = chosen ^ flip[..., None]
        return out


def one_bit(grouped: _Float32) -> OneBit:
    """Thresholds and levels of finite float32 groups (rows, groups, size)."""
    shape, unit = grouped.shape[:-1], _top(grouped) / REACH
    nowhere = np.zeros(shape, np.bool_)
    norm = np.zeros(shape, np.int64)
    for part in pieces(grouped):
        position = _positions(grouped, part, nowhere)
        norm += (position * position).sum(axis=-1)
    squares = norm.astype(np.float32)
    spread = np.maximum(np.sqrt(squares / np.float32(grouped.shape[-1])), np.float32(1))
    # Bytes are positions times this over 2^15, as mulhrs rounds.
    factor = np.minimum(np.float32(STEPS << 15) / spread, np.float32(32767)).astype(np.int64)
    best, mean, below = np.full(shape, -1, np.float32), np.zeros(shape, np.float32), nowhere
    for start in STARTS:
        for side in (True, False):
            total, count = _beyond(grouped, np.full(shape, start), np.full(shape, side), factor)
            average = total / count
            gain = average * total
            better = gain > best
            best, mean = np.where(better, gain, best), np.where(better, average, mean)
            below = np.where(better, side, below)
    threshold = (mean * (np.float32(1 << 14) / factor.astype(np.float32))).astype(np.int64)
    along, count = _beyond(grouped, threshold, below)
    with np.errstate(over="ignore"):  # of weights that no scale holds
        level = np.divide(squares, along, out=np.zeros_like(along), where=along != 0) * unit
    return OneBit(threshold, below, along / count * unit, level)


def _top(grouped: _Float32) -> _Float32:
    low, high = grouped.min(axis=-1), grouped.max(axis=-1)
    top: _Float32 = np.maximum(np.maximum(-low, high), _LEAST)
    return top


def _positions(grouped: _Float32, part: slice, below: NDArray[np.bool_]) -> _Int64:
    """rint(x * (REACH / top)), positive on the side of the level."""
    position = np.rint(grouped[..., part] * (REACH / _top(grouped))[..., None]).astype(np.int64)
    return np.where(below[..., None], -position, position)


def _beyond(
    grouped: _Float32, threshold: _Int64, below: NDArray[np.bool_], factor: _Int64 | None = None
) -> tuple[_Float32, _Float32]:
    """Sum and number (at least 1) of the positions, or bytes where there is a factor, beyond a threshold."""
    total, count = np.zeros(threshold.shape, np.int64), np.zeros(threshold.shape, np.int64)
    nowhere = np.zeros_like(below)
    for part in pieces(grouped):
        if factor is None:
            position = _positions(grouped, part, below)
        else:
            rounded = (_positions(grouped, part, nowhere) * factor[..., None] + (1 << 14)) >> 15
            position = np.clip(np.where(below[..., None], -rounded, rounded), -LAST, LAST)
        chosen = position > threshold[..., None]
        total += np.where(chosen, position, 0).sum(axis=-1)
        count += np.count_nonzero(chosen, axis=-1)
    return total.astype(np.float32), np.maximum(count, 1).astype(np.float32)


def pieces(grouped: _Float32) -> Iterator[slice]:
    """Spans of the last axis that keep copies of (rows, groups, size) weights small, even if a group is a matrix."""
    size = grouped.shape[-1]
    step = max(1, BLOCK_ELEMENTS * size // max(1, grouped.size))
    return (slice(start, start + step) for start in range(0, size, step))
