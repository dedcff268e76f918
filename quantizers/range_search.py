"""The scale of a group among several clipped ranges: codes, scales and zero points with the least weighed error.

For each range, with q the rounded steps, the scale is the one with w'Hq = w'Hw, and the range is kept whose
s^2 q'Hq - 2 s w'Hq + w'Hw is smallest (see quantizers.clip). quantizers.on_device does the same for all groups at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.core.errors import Unsupported
from bitwright.core.formats import IntFormat
from quantizers.base import Float32Matrix
from quantizers.rtn import GAIN_LIMITS, group_parameters, half_scale, round_codes

#: Shares of the range that are tried (research/09: 1 down to 0.5).
RATIOS = tuple(1 - 0.05 * step for step in range(11))
#: Largest magnitude of a float16 scale.
HALF = 65504.0
Spans = Sequence[tuple[int, int]]
#: Codes (rows, columns), scales (rows, groups) and zero points (rows, groups).
Found = tuple[NDArray[np.uint8], NDArray[np.float16], NDArray[np.uint8]]


@dataclass(frozen=True, eq=False)
class Weighing:
    """What an error counts. block: (start, stop) -> the group's (size, size) of H; each: float32 (rows, columns), a
    diagonal H row by row. Neither: every error alike.
    """

    block: Callable[[int, int], NDArray[np.floating[Any]]] | None = None
    each: Float32Matrix | None = None

    def pull(self, start: int, stop: int) -> Callable[[Float32Matrix], Float32Matrix]:
        """x -> x H for rows x of a group."""
        if self.block is not None:
            block = self.block(start, stop).astype(np.float32)
            return lambda rows: rows @ block
        each = self.each
        return (lambda rows: rows) if each is None else (lambda rows: rows * each[:, start:stop])


@np.errstate(over="ignore", invalid="ignore")  # numbers beyond float32 lose against any other, or are told
def search(
    weight: Float32Matrix, spans: Spans, format: IntFormat, weighing: Weighing, ratios: Sequence[float], name: str
) -> Found:
    """The best range of each group `spans` of a float32 (rows, columns) weight. Raises Unsupported (scales)."""
    rows = weight.shape[0]
    codes = np.empty(weight.shape, np.uint8)
    scales, zeros = np.empty((rows, len(spans)), np.float16), np.empty((rows, len(spans)), np.uint8)
    for number, (start, stop) in enumerate(spans):
        group = np.ascontiguousarray(weight[:, start:stop])
        codes[:, start:stop], scales[:, number], zeros[:, number] = _group(
            group, format, weighing.pull(start, stop), ratios, name
        )
    return codes, scales, zeros


def candidates(
    grouped: NDArray[np.float32], ratios: Sequence[float], format: IntFormat, name: str
) -> Iterator[tuple[Any, Any]]:
    """Scales and zero points, (rows, groups), to round (rows, groups, size) weights with: of each share of their range.

    1-bit formats have no range, their scale shrinks instead.
    """
    low, high = grouped.min(axis=-1), grouped.max(axis=-1)
    for ratio in ratios:
        share = np.float32(ratio)
        yield group_parameters(grouped, low * share, high * share, format, name)


def _group(
    group: Float32Matrix,
    format: IntFormat,
    pull: Callable[[Float32Matrix], Float32Matrix],
    ratios: Sequence[float],
    name: str,
) -> Found:
    rows = group.shape[0]
    weighed = pull(group)
    norm = np.einsum("ri,ri->r", weighed, group, dtype=np.float64)
    best = np.full(rows, np.inf)
    codes, scales, zeros = np.empty(group.shape, np.uint8), np.empty(rows, np.float16), np.empty(rows, np.uint8)
    for tried_scale, tried_zero in candidates(group[:, None, :], ratios, format, name):
        start, zero = tried_scale[:, 0], tried_zero[:, 0]
        tried = round_codes(group[:, None, :], start[:, None], zero[:, None], format.width)[:, 0]
        steps = tried.astype(np.float32) - zero[:, None].astype(np.float32)
        along = np.einsum("ri,ri->r", weighed, steps, dtype=np.float64)
        scale = _rescaled(start, along, norm, format)
        energy = np.einsum("ri,ri->r", pull(steps), steps, dtype=np.float64)
        real = scale.astype(np.float64)
        error = norm - 2 * real * along + real * real * energy
        better = error < best
        best[better], codes[better], scales[better], zeros[better] = (
            error[better], tried[better], scale[better], zero[better],
        )  # fmt: skip
    if not np.isfinite(best).all():
        raise Unsupported(
            f"{name}: the errors of ranges cannot be compared",
            expected="errors that float32 holds", got=f"weights up to {np.abs(group).max():.3g} with these moments",
            hint="use the error plain of clip, or scale the moments down",
        )  # fmt: skip
    return codes, scales, zeros


def _rescaled(
    scale: NDArray[np.float16], along: NDArray[np.float64], norm: NDArray[np.float64], format: IntFormat
) -> NDArray[np.float16]:
    """The scale with w'Hq = w'Hw, within GAIN_LIMITS of the rounding scale from 2 bits on."""
    before = scale.astype(np.float64)
    gain = np.divide(norm, along * before, out=np.ones_like(norm), where=(along * before) > 0)
    if format.width > 1:
        gain = np.clip(gain, *GAIN_LIMITS)
    held = np.clip(gain * before, -HALF, HALF)
    return half_scale(held.astype(np.float32), "scale")


def power_errors(
    group: Float32Matrix, counts: Float32Matrix, scales: NDArray[Any], zeros: NDArray[np.uint8], top: int, power: float
) -> NDArray[np.float64]:
    """(candidates, rows) sums of counts |err|^power of rounding (rows, size) weights with (candidates, rows) scales."""
    found = np.empty(scales.shape)
    for number, (scale, zero) in enumerate(zip(scales, zeros, strict=True)):
        step, middle = scale.astype(np.float32)[:, None], zero.astype(np.float32)[:, None]
        codes = np.clip(np.rint(group / step) + middle, 0, np.float32(top))
        error = np.abs((codes - middle) * step - group)
        found[number] = np.einsum("ij,ij->i", counts, error**power, dtype=np.float64)
    return found
