"""Codes, sub-scales and minima of ggml's K and IQ4 types, in numpy: the truth for the native search.

For every group, a grid of first scales is tried; each gives codes, and codes give the best scale (and minimum) by
weighted least squares, so only rounding is searched. The best of all is refined by rounding and solving again.
Then the sub-scales are rounded to their integers under the block's float16 scale, and for each group the neighbours of
that rounding are tried with the codes and the minimum that fit them. All sums are float32, from first to last weight.

Types with a table of levels try both directions of the table. Weights of the errors, as in ggml's reference without an
importance matrix: x^2 for types without minima; |x| for q2_k;
|x| + root mean square of the group for q4_k and q5_k.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpu_kernels.block_layouts import BlockLayout, Bytes

_Float32 = NDArray[np.float32]
#: iq4 levels are about 16 apart, so a step is an eighth of that.
TABLE_STEP = np.float32(8)
#: Blocks handled at once, so that temporaries stay in the cache.
_CHUNK = 256


def row_sum(products: _Float32) -> _Float32:
    """float32 sum over the last axis from first to last, the order of the native code."""
    columns = np.moveaxis(products, -1, 0)
    total = columns[0].copy()
    for column in columns[1:]:
        total += column
    return np.asarray(total)


def _steps(layout: BlockLayout) -> list[np.float32]:
    """First scales are moved by -1 .. 1 of a level."""
    return [np.float32(k) / np.float32(layout.tries) for k in range(-layout.tries, layout.tries + 1)]


def quantize_searched(x: _Float32, layout: BlockLayout) -> Bytes:
    """Bytes (blocks, nbytes) of (blocks, block) finite weights in a type with sub-scales, or iq4_nl."""
    out = np.empty((x.shape[0], layout.nbytes), np.uint8)
    make = _affine_blocks if layout.affine else _level_blocks
    with np.errstate(all="ignore"):
        for start in range(0, x.shape[0], _CHUNK):
            part = x[start : start + _CHUNK]
            out[start : start + _CHUNK] = make(part.reshape(part.shape[0], layout.groups, -1), layout)
    return out


@dataclass
class _Groups:
    """Groups (blocks, groups, size) with weights and the sums that do not depend on codes."""

    x: _Float32
    w: _Float32

    def __post_init__(self) -> None:
        self.wx = self.w * self.x
        self.sw = row_sum(self.w)
        self.swx = row_sum(self.wx)

    def error(self, scale: _Float32, level: _Float32, offset: _Float32 | None) -> _Float32:
        """Weighted squared error of scale * level + offset."""
        off = scale[..., None] * level
        if offset is not None:
            off += offset[..., None]
        off -= self.x
        return row_sum(self.w * off * off)


def _half(value: _Float32) -> NDArray[np.float16]:
    """Nearest float16 within its range; never -0, so that equal blocks have equal bytes."""
    held = np.clip(value + np.float32(0), np.float32(-65504), np.float32(65504))
    return np.asarray(held, np.float16)


def _reciprocal(value: _Float32) -> _Float32:
    inverse = np.float32(1) / value
    return np.where(np.abs(inverse) < np.inf, inverse, np.float32(0)).astype(np.float32)


# --- scale and minimum ------------------------------------------------------------------------------------------------


def _affine_fit(groups: _Groups, level: _Float32) -> tuple[_Float32, _Float32, _Float32]:
    """(gain, scale, offset <= 0) of least squares for given codes; the error is sum w x^2 - gain. Gain -1: no fit."""
    weighted = groups.w * level
    swl, swll, swxl = row_sum(weighted), row_sum(weighted * level), row_sum(groups.wx * level)
    det = groups.sw * swll - swl * swl
    free = (groups.sw * swxl - groups.swx * swl) / det
    offset = (swll * groups.swx - swl * swxl) / det
    scale: _Float32 = np.where(offset > 0, swxl / swll, free).astype(np.float32)
    below: _Float32 = np.where(offset > 0, np.float32(0), offset).astype(np.float32)
    gain = scale * swxl + below * groups.swx
    fine = (det > 0) & (scale > 0) & (gain > 0)
    return np.where(fine, gain, np.float32(-1)).astype(np.float32), scale, below


def _affine_blocks(x: _Float32, layout: BlockLayout) -> Bytes:
    top = np.float32((1 << layout.bits) - 1)
    size = np.float32(x.shape[-1])
    magnitude = np.abs(x)
    spread = np.float32(0) if layout.bits == 2 else np.sqrt(row_sum(x * x) / size)[..., None]
    groups = _Groups(x, spread + magnitude)
    low = np.minimum(x.min(axis=-1), np.float32(0))
    width = x.max(axis=-1) - low
    best = np.full(low.shape, -1, np.float32)
    scale, offset = np.zeros_like(low), low.copy()

    def consider(inverse: _Float32, base: _Float32) -> None:
        level = np.rint(inverse[..., None] * (x - base[..., None]))
        gain, s, o = _affine_fit(groups, np.minimum(np.maximum(level, np.float32(0)), top))
        better = (gain > best) & np.isfinite(inverse)
        best[better], scale[better], offset[better] = gain[better], s[better], o[better]

    for step in _steps(layout):
        consider((top + step) / width, low)
    for _ in range(layout.refinements):
        consider(_reciprocal(scale), offset.copy())
    return _affine_pack(groups, scale, np.float32(0) - offset, layout)


def _affine_pack(groups: _Groups, scale: _Float32, minimum: _Float32, layout: BlockLayout) -> Bytes:
    steps = np.float32(layout.scale_top)
    d, m = _half(scale.max(axis=-1) / steps), _half(minimum.max(axis=-1) / steps)
    wide, wide_m = d.astype(np.float32)[:, None], m.astype(np.float32)[:, None]
    inverse, inverse_m = _reciprocal(wide), _reciprocal(wide_m)
    first = np.minimum(np.rint(scale * inverse), steps)
    first_min = np.minimum(np.rint(minimum * inverse_m), steps)
    best = np.full(scale.shape, np.inf, np.float32)
    scales, mins = first.copy(), first_min.copy()
    codes = np.zeros_like(groups.x)
    for move in (0, -1, 1):
        trial = np.minimum(np.maximum(first + np.float32(move), np.float32(0)), steps)
        trial_min = first_min
        for again in (False, True):
            s, o = wide * trial, -(wide_m * trial_min)
            level = _affine_levels(groups.x, s, o, layout.bits)
            error = groups.error(s, level, o)
            better = error < best
            best[better], scales[better], mins[better] = error[better], trial[better], trial_min[better]
            codes[better] = level[better]
            if not again:
                fitted = (s * row_sum(groups.w * level) - groups.swx) / groups.sw
                moved = np.minimum(np.maximum(np.rint(fitted * inverse_m), np.float32(0)), steps)
                trial_min = np.where(groups.sw > 0, moved, first_min)
    fields = {"codes": codes, "scales": scales, "mins": mins}
    return layout.pack({k: v.reshape(v.shape[0], -1).astype(np.uint8) for k, v in fields.items()}, {"d": d, "m": m})


def _affine_levels(x: _Float32, scale: _Float32, offset: _Float32, bits: int) -> _Float32:
    level = np.rint(_reciprocal(scale)[..., None] * (x - offset[..., None]))
    return np.minimum(np.maximum(level, np.float32(0)), np.float32((1 << bits) - 1))


# --- scale alone: levels on both sides of 0 ---------------------------------------------------------------------------


def _nearest(scaled: _Float32, layout: BlockLayout) -> _Float32:
    """Levels nearest to scaled weights; halfway to even, in a table to the upper."""
    if not layout.table:
        low, high = np.float32(-layout.zero), np.float32((1 << layout.bits) - 1 - layout.zero)
        return np.minimum(np.maximum(np.rint(scaled), low), high)
    table = np.asarray(layout.table, np.float32)
    middles = (table[1:] + table[:-1]) * np.float32(0.5)
    return np.asarray(table[np.searchsorted(middles, scaled.ravel(), side="right")].reshape(scaled.shape))


def _level_blocks(x: _Float32, layout: BlockLayout) -> Bytes:
    groups = _Groups(x, x * x)
    high, low = x.max(axis=-1), x.min(axis=-1)
    extreme = np.where(high > -low, high, low)
    best = np.full(extreme.shape, -1, np.float32)
    scale = np.zeros_like(extreme)

    def consider(inverse: _Float32) -> None:
        level = _nearest(inverse[..., None] * x, layout)
        swll, swxl = row_sum(groups.w * level * level), row_sum(groups.wx * level)
        s = swxl / swll
        gain = s * swxl
        better = (gain > best) & (swll > 0) & np.isfinite(inverse)
        best[better], scale[better] = gain[better], s[better]

    end, step = (np.float32(layout.table[0]), TABLE_STEP) if layout.table else (np.float32(-layout.zero), np.float32(1))
    for side in (1, -1) if layout.table else (1,):
        for move in _steps(layout):
            consider(np.float32(side) * (end - move * step) / extreme)
    for _ in range(layout.refinements):
        consider(_reciprocal(scale))
    return _level_pack(groups, scale, layout)


def _codes(level: _Float32, layout: BlockLayout) -> Bytes:
    if layout.table:
        found = np.searchsorted(np.asarray(layout.table, np.float32), level.ravel()).reshape(level.shape)
        return found.astype(np.uint8)
    return (level + np.float32(layout.zero)).astype(np.uint8)


def _level_pack(groups: _Groups, scale: _Float32, layout: BlockLayout) -> Bytes:
    count = scale.shape[0]
    if not layout.sub:
        d = _half(scale[:, 0])
        level = _nearest(_reciprocal(d.astype(np.float32))[:, None, None] * groups.x, layout)
        return layout.pack({"codes": _codes(level, layout).reshape(count, -1)}, {"d": d})
    high, low = scale.max(axis=-1), scale.min(axis=-1)
    most = np.where(high > -low, high, low)
    bottom, top = np.float32(-layout.bias), np.float32(layout.bias - 1)
    d = _half(most / bottom)
    wide = d.astype(np.float32)[:, None]
    first = np.minimum(np.maximum(np.rint(scale * _reciprocal(wide)), bottom), top)
    best = np.full(scale.shape, np.inf, np.float32)
    scales, levels = first.copy(), np.zeros_like(groups.x)
    for move in (0, -1, 1):
        trial = np.minimum(np.maximum(first + np.float32(move), bottom), top)
        s = wide * trial
        level = _nearest(_reciprocal(s)[..., None] * groups.x, layout)
        error = groups.error(s, level, None)
        better = error < best
        best[better], scales[better], levels[better] = error[better], trial[better], level[better]
    stored = scales.astype(np.int8).view(np.uint8) if layout.signed else (scales - bottom).astype(np.uint8)
    return layout.pack({"codes": _codes(levels, layout).reshape(count, -1), "scales": stored}, {"d": d})
