"""Round to nearest, for every format: integers of any number of levels, symmetric and asymmetric, any group size.

The scale is rounded to its stored type first and the codes are computed with the rounded scale, through its float32
reciprocal, in a fixed order: code = clip(rint(x * (1/s)) + zero). Native kernels repeat exactly these steps.

    asymmetric  range [min(x, 0), max(x, 0)]; s = range / (2^b - 1); zero = rint(-min / s)      (research/08, its RTN)
    symmetric   the value of largest magnitude becomes code 0, exactly: s = -extreme / 2^(b-1), so s may be negative.
                The grid [-2^(b-1), 2^(b-1) - 1] has one step more on its negative side; the sign of s turns that side
                to where the largest weight lies. Mean squared error on normal weights, groups of 64, against
                s = absmax / (2^(b-1) - 0.5): 0.60 at 2 bits, 0.76 at 3, 0.85 at 4, 0.93 at 6; KL of tests/models/
                llama-stdlib: 0.54 at 2 bits, 0.75 at 3, 0.85 at 4.
    1 bit       one level is 0 and the other +-s, for both kinds (a grid must hold 0). Range-based scales round nearly
                everything to 0 there, so s is near the least-squares one (quantizers/one_bit.py).

Symmetric grids of few bits clip one side and so shrink the weights, and shrinkage adds up over a model (research/09,
conclusion 3). Up to 4 bits their stored scale is therefore the one with w'q = w'w, found after rounding (codes stay)
from whole numbers, so that no order of adding matters: positions w / s in 1/256 of a step, and their steps.
KL of llama-stdlib against no correction: 0.35 at 1 bit (both kinds), 0.86 at 2, 0.95 at 3, 0.97 at 4.

`sign` formats hold +-s with s the mean magnitude: on normal weights 0.36 of the variance is lost, 0.6 by an `int1`.

An all-zero group gets the smallest scale and the code of zero; scales are never zero (2^-24 at least).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.core.errors import BitwrightError, InvalidInput, Unsupported
from bitwright.core.formats import BlockFormat, FloatFormat, Format, GridFormat, IntFormat
from gpu_kernels.blocks import largest_weight, quantize_blocks
from gpu_kernels.kernels import absmax, packed_rows, rtn_pack, widen
from gpu_kernels.reference_quantize import codes_of, lane_sum
from quantizers.base import (
    BLOCK_ELEMENTS,
    Blocks,
    Float32Matrix,
    PassThrough,
    Quantized,
    Stored,
    check_weight,
    float32_to_bf16,
    not_finite,
    pass_through,
    scale_overflow,
)
from quantizers.one_bit import one_bit, pieces

#: Smallest positive float16 (a subnormal).
TINY_SCALE = np.float32(2.0**-24)
#: Widest symmetric format whose scale is corrected for shrinkage; beyond it the correction changes nothing measurable.
UNSHRINK_WIDTH = 4
GAIN_LIMITS = (0.7, 1.5)
#: Parts of a step in which positions are counted for that correction.
FINE = np.float32(256)
GRID_SCALES = ("unshrunk", "norm")
_MAX_HALF = np.float32(65504.0)
#: Limits of bfloat16 and float32 scales: their reciprocals, and gains of GAIN_LIMITS, stay finite.
TINY_WIDE, _MAX_WIDE = np.float32(2.0**-100), np.float32(2.0**100)
#: numpy types of scales in memory, by the type they are stored in; bfloat16 is held in float32.
SCALE_TYPES = {"F16": np.float16, "BF16": np.float32, "F32": np.float32}
#: Weights read and packed at once by `quantize_read`: 2 MiB of 16-bit floats.
PIECE = 1 << 20
#: Rows [start, stop) of a matrix: float32, float16, or uint16 that holds bfloat16 bits.
ReadRows = Callable[[int, int], NDArray[Any]]
_Float32 = NDArray[np.float32]
Scales = NDArray[Any]


class RoundToNearest:
    """The `rtn` quantizer: no data, no search.

    Option `grid_scale`: for formats that rotate weights, the scale that makes up for shrinkage ("unshrunk"), or the
    group's root mean square as in HIGGS ("norm").
    """

    name = "rtn"
    takes_stored = True
    options = frozenset({"grid_scale"})
    stateless = True

    def quantize(self, weight: Float32Matrix, format: Format, *, name: str = "weight", **context: Any) -> Stored:
        """See quantizers.base.Quantizer."""
        if isinstance(format, IntFormat) and (format.plain or format.centered) and weight.ndim == 2:
            group = format.group or max(1, weight.shape[1])
            native = rtn_pack(weight, format.width, format.symmetric, group, corrects(format), signs=format.centered)
            if isinstance(native, tuple):
                words, scales, zeros = native
                return Quantized.packed(words, weight.shape[1], scales, zeros, format)
        # No native code, or it met weights that the lines below turn into an error.
        if isinstance(format, FloatFormat):
            return _passed(weight, format, name)
        weight = _wide(weight)
        check_weight(weight, name)
        if isinstance(format, BlockFormat):
            return _blocks(weight, format, name, context.get("grid_scale", GRID_SCALES[0]))
        if not isinstance(format, IntFormat):
            raise Unsupported("rtn cannot make this format", expected="an int, block or 16-bit format", got=format.name)
        if not format.tensor or weight.size == 0:
            return _quantize(weight, format, name)
        # One scale a tensor: the matrix is one long row.
        flat = _quantize(np.ascontiguousarray(weight).reshape(1, -1), format, name)
        scales = np.repeat(flat.scales, weight.shape[0], axis=0)
        zeros = None if flat.zeros is None else np.repeat(flat.zeros, weight.shape[0], axis=0)
        return Quantized(flat.codes.reshape(weight.shape), scales, zeros, format)

    def quantize_read(self, read: ReadRows, shape: tuple[int, int], format: Format) -> Stored | None:
        """`quantize` of a matrix as it is stored, read in pieces that are packed while the cache holds them.

        None: these weights or this format need the whole matrix, or its error.
        """
        rows, columns = shape
        if not isinstance(format, IntFormat) or not (format.plain or format.centered) or not rows * columns:
            return None
        group, step = format.group or columns, max(1, PIECE // columns)
        words, scales, zeros = packed_rows(rows, columns, format.width, format.symmetric, group)
        for start in range(0, rows, step):
            part = slice(start, min(start + step, rows))
            into = words[part], scales[part], None if zeros is None else zeros[part]
            piece = read(part.start, part.stop)
            if piece.shape != (part.stop - part.start, columns):
                return None
            found = rtn_pack(
                piece, format.width, format.symmetric, group, corrects(format), signs=format.centered, into=into
            )
            if not isinstance(found, tuple):
                return None
        return Quantized.packed(words, columns, scales, zeros, format)


QUANTIZER = RoundToNearest()


def _wide(weight: NDArray[Any]) -> NDArray[Any]:
    """float32 of stored 16-bit weights; others as they are, to be judged by `check_weight`."""
    return widen(weight) if weight.dtype in (np.float16, np.uint16) else weight


def _passed(weight: NDArray[Any], format: FloatFormat, name: str) -> PassThrough:
    """`pass_through` of stored or float32 weights, some rows at a time: no float32 copy of the whole matrix."""
    if weight.ndim != 2 or weight.size <= BLOCK_ELEMENTS:
        return pass_through(_wide(weight), format, name)
    out = np.empty(weight.shape, np.uint16 if format.dtype == "BF16" else np.float16)
    step = max(1, BLOCK_ELEMENTS // weight.shape[1])
    for start in range(0, len(weight), step):
        rows = slice(start, start + step)
        try:
            out[rows] = pass_through(_wide(weight[rows]), format, name).array
        except BitwrightError:
            return pass_through(_wide(weight), format, name)  # its error counts the whole matrix
    return PassThrough(out, format)


def _blocks(weight: Float32Matrix, format: BlockFormat, name: str, grid_scale: object) -> Blocks:
    if grid_scale not in GRID_SCALES:
        raise InvalidInput(
            "the option grid_scale of rtn is unknown", expected=", ".join(GRID_SCALES), got=repr(grid_scale)[:80]
        )
    largest = absmax(weight)
    if not np.isfinite(largest):
        raise not_finite(name, int(weight.size - np.count_nonzero(np.isfinite(weight))), weight.size)
    if largest > largest_weight(format):
        raise Unsupported(
            f"{name}: a weight is too large for {format.name}",
            expected=f"magnitudes up to {largest_weight(format):.4g}",
            got=f"{largest:.4g}",
            hint="keep this unit in bf16 (add bf16 to the formats)",
        )
    plain = isinstance(format, GridFormat) and grid_scale != GRID_SCALES[0]
    data, scales = quantize_blocks(weight, format, **({"unshrink": False} if plain else {}))
    return Blocks(data, scales, weight.shape[1], format)


def _quantize(weight: Float32Matrix, format: IntFormat, name: str) -> Quantized:
    rows, columns = weight.shape
    groups = format.groups(columns) if columns else 0
    codes = np.empty((rows, columns), dtype=np.uint8)
    scales = np.empty((rows, groups), dtype=SCALE_TYPES[format.scale])
    zeros = None if format.symmetric else np.empty((rows, groups), dtype=np.uint8)
    step = max(1, BLOCK_ELEMENTS // max(1, columns))
    for start in range(0, rows, step):
        block = slice(start, start + step)
        for columns_part, groups_part, size in _parts(columns, format):
            part = weight[block, columns_part]
            grouped = part.reshape(part.shape[0], -1, size)
            low, high = _range(grouped, name)
            if format.width == 1 and not format.centered:
                rounded, scale, zero = _one_bit(grouped, format, name)
            else:
                scale, zero = group_parameters(grouped, low, high, format, name)
                signs = format.centered
                rounded = (grouped >= 0).astype(np.uint8) if signs else _round_to(grouped, scale, zero, format.top)
                scale = unshrunk_scale(grouped, rounded, scale, zero, format)
            if zeros is not None:
                zeros[block, groups_part] = zero
            codes[block, columns_part] = rounded.reshape(part.shape)
            scales[block, groups_part] = scale
    return Quantized(codes, scales, zeros, format)


def _one_bit(grouped: _Float32, format: IntFormat, name: str) -> tuple[NDArray[np.uint8], Scales, NDArray[np.uint8]]:
    """Codes, scales to store and zero points of groups (rows, groups, size) in an `int1`."""
    found = one_bit(grouped)
    held = found.level >= (
        TINY_SCALE if format.scale == "F16" else TINY_WIDE
    )  # smaller ones are nearer 0 than any scale
    below = found.below & held
    level = np.where(held, found.level, np.float32(0))
    scale = stored_scale(np.where(below | ~held, level, -level) if format.symmetric else level, format, name)
    zero = np.ones(level.shape, np.uint8) if format.symmetric else below.astype(np.uint8)
    return found.codes(grouped, held, format.symmetric), scale, zero


def _parts(columns: int, format: IntFormat) -> list[tuple[slice, slice, int]]:
    """(columns, groups, group size) of the whole groups and of the short last one."""
    if columns == 0:
        return []
    size = min(format.group or columns, columns)
    whole = columns // size
    parts = [(slice(0, whole * size), slice(0, whole), size)]
    if whole * size < columns:
        parts.append((slice(whole * size, columns), slice(whole, whole + 1), columns - whole * size))
    return parts


def _range(grouped: _Float32, name: str) -> tuple[_Float32, _Float32]:
    """Smallest and largest weight of every group; NaN and infinity show up in them."""
    low, high = grouped.min(axis=-1), grouped.max(axis=-1)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise not_finite(name, int(grouped.size - np.count_nonzero(np.isfinite(grouped))), grouped.size)
    return low, high


def group_parameters(
    grouped: _Float32, low: _Float32, high: _Float32, format: IntFormat, name: str
) -> tuple[Scales, NDArray[np.uint8]]:
    """Scales and uint8 zero points of groups (rows, groups, size) with ranges [low, high]."""
    half = format.middle
    if format.centered:  # codes are the weights' signs; their mean magnitude is then the least-squares scale
        mean = lane_sum(np.abs(grouped)) / np.float32(grouped.shape[-1])
        return stored_scale(mean, format, name), np.zeros(low.shape, np.uint8)
    if format.width == 1:
        found = one_bit(grouped)
        scale = stored_scale(
            np.where(found.below, found.mean, -found.mean) if format.symmetric else found.mean, format, name
        )
        return scale, np.ones(low.shape, np.uint8) if format.symmetric else found.below.astype(np.uint8)
    if format.symmetric:
        extreme = np.where(high > -low, high, low)
        # + 0 turns -0 into 0, so that the sign of an all-zero group does not depend on the order of its zeros.
        return stored_scale(extreme / np.float32(-half) + np.float32(0), format, name), np.full(
            low.shape, half, np.uint8
        )
    low, high = np.minimum(low, 0), np.maximum(high, 0)
    top = np.float32(format.top)
    scale = stored_scale(high / top - low / top, format, name)
    inverse = np.float32(1) / scale.astype(np.float32)
    return scale, np.clip(np.rint(-low * inverse), 0, top).astype(np.uint8)


def half_scale(scale: NDArray[np.floating[Any]], name: str) -> NDArray[np.float16]:
    """Scales rounded to float16, magnitudes held to at least 2^-24. Raises Unsupported beyond 65504."""
    return _held(scale, TINY_SCALE, _MAX_HALF, name).astype(np.float16)


def stored_scale(scale: NDArray[np.floating[Any]], format: IntFormat, name: str) -> Scales:
    """Scales rounded to the format's type of scale (bf16 and fp32 as float32). Raises Unsupported."""
    if format.scale == "F16":
        return half_scale(scale, name)
    wide = _held(scale, TINY_WIDE, _MAX_WIDE, name).astype(np.float32)
    return widen(float32_to_bf16(wide)) if format.scale == "BF16" else wide


def _held(scale: NDArray[np.floating[Any]], tiny: np.float32, most: np.float32, name: str) -> NDArray[np.floating[Any]]:
    magnitude = np.maximum(np.abs(scale), tiny)
    largest = magnitude.max(initial=0)
    if largest > most:
        raise scale_overflow(name, float(largest), float(most))
    signed: NDArray[np.floating[Any]] = np.copysign(magnitude, scale)
    return signed


def round_codes(
    grouped: _Float32, scale: NDArray[np.float16], zero: NDArray[np.uint8], width: int
) -> NDArray[np.uint8]:
    """uint8 codes of groups (rows, groups, size): clip(rint(x * (1/s)) + zero, 0, 2^width - 1)."""
    return _round_to(grouped, scale, zero, (1 << width) - 1)


def _round_to(grouped: _Float32, scale: Scales, zero: NDArray[np.uint8], top: int) -> NDArray[np.uint8]:
    inverse, zero_point = (np.float32(1) / scale.astype(np.float32))[..., None], zero[..., None].astype(np.float32)
    codes = np.empty(grouped.shape, np.uint8)
    for part in pieces(grouped):
        codes[..., part] = codes_of(grouped[..., part], inverse, zero_point, top)
    return codes


def corrects(format: IntFormat) -> bool:
    """Whether the stored scale of this format is corrected for shrinkage."""
    return not format.centered and (format.width == 1 or (format.symmetric and format.width <= UNSHRINK_WIDTH))


def unshrunk_scale(
    grouped: _Float32,
    codes: NDArray[np.uint8],
    scale: Scales,
    zero: NDArray[np.uint8],
    format: IntFormat,
) -> Scales:
    """The scale to store: s' with w'q = w'w for grids that clip (see the module), else the scale itself.

    It stays within GAIN_LIMITS of the rounding scale, as in research/09 (d').
    """
    if not corrects(format):
        return scale
    before = scale.astype(np.float32)
    along, norm = (np.zeros(before.shape, np.int64) for _ in range(2))
    for part in pieces(grouped):
        steps = codes[..., part].astype(np.int64) - zero[..., None]
        fine = np.rint(grouped[..., part] * (np.float32(1) / before * FINE)[..., None]).astype(np.int64)
        along += (fine * steps).sum(axis=-1)
        norm += (fine * fine).sum(axis=-1)
    gain = np.ones(along.shape, np.float32)
    np.divide(norm.astype(np.float32), along.astype(np.float32) * FINE, out=gain, where=along != 0)
    gain = np.clip(gain, np.float32(GAIN_LIMITS[0]), np.float32(GAIN_LIMITS[1]))
    half = format.scale == "F16"
    most = _MAX_HALF if half else _MAX_WIDE
    held = np.clip(gain * before, -most, most)
    kept = np.where(np.abs(held) >= (TINY_SCALE if half else TINY_WIDE), held, before)
    return kept.astype(np.float16) if half else stored_scale(kept, format, "weight")
