"""Small floats in blocks: fp8, mxfp8, mxfp4, nvfp4, nf4. numpy is the truth; native/small.inl gives the same bytes.

A block is the bytes of its scale, then its codes: a byte each, or nibbles, of which byte j holds code j below and code
j + ceil(N/2) above. A weight is (scale * outer scale) * value of its code.

    fp8-e4m3, fp8-e5m2   no scale in the block; a float32 scale a row: max |x| / largest value (448, 57344)
    mxfp8, mxfp4         32 weights, scale 2^e as one byte e + 127, e = floor(log2 max |x|) - (8 or 2), or one more
                         where that loses less (OCP Microscaling Formats 1.0 section 6.3 leaves it open); e4m3, e2m1
    nvfp4                16 weights, e4m3 scale max |x| / (6 * outer), outer = max |x| of the matrix / (6 * 448); e2m1
    nf4                  N weights, float16 scale max |x|; levels are quantiles of a normal distribution (QLoRA,
                         arXiv 2305.14314 appendix E)

Rounding is to nearest, halves to even code, and saturates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.core.block_format import BlockFormat
from gpu_kernels.block_reference import in_blocks
from gpu_kernels.library import library
from gpu_kernels.reference_quantize import lane_sum
from gpu_kernels.threads import over_rows

_Float32 = NDArray[np.float32]
Bytes = NDArray[np.uint8]
#: Smallest scale beside blocks: its reciprocal is finite, and so are products with weights.
TINY = np.float32(2.0**-100)


@dataclass(frozen=True)
class SmallFloat:
    """A float of 1 sign bit, `exponent` and `mantissa` bits. last: the largest finite code without its sign."""

    exponent: int
    mantissa: int
    bias: int
    last: int

    @property
    def width(self) -> int:
        return 1 + self.exponent + self.mantissa

    def values(self) -> _Float32:
        """What every code stands for; codes beyond `last` are NaN (e5m2's infinity is never written)."""
        magnitude = np.arange(1 << (self.width - 1))
        power, digits = magnitude >> self.mantissa, magnitude & ((1 << self.mantissa) - 1)
        whole = np.where(power > 0, digits + (1 << self.mantissa), digits)
        found = whole * 2.0 ** (np.maximum(power, 1) - self.bias - self.mantissa)
        found[self.last + 1 :] = np.nan
        return np.concatenate([found, -found]).astype(np.float32)

    def encode(self, x: _Float32) -> Bytes:
        """Codes of finite numbers: nearest, halves to even, saturating."""
        bits = np.ascontiguousarray(x).view(np.uint32)
        magnitude = bits & np.uint32(0x7FFFFFFF)
        drop = np.uint32(23 - self.mantissa)
        odd = (magnitude >> drop) & np.uint32(1)
        rounded = (magnitude + odd + np.uint32((1 << (22 - self.mantissa)) - 1)) >> drop
        normal = rounded.astype(np.int64) - ((127 - self.bias) << self.mantissa)
        small = np.rint(magnitude.view(np.float32) * np.float32(2.0 ** (self.bias - 1 + self.mantissa)))
        is_small = magnitude < np.uint32((128 - self.bias) << 23)
        code = np.where(is_small, np.where(is_small, small, 0).astype(np.int64), normal)
        sign = (bits >> np.uint32(31)) << np.uint32(self.width - 1)
        return (np.minimum(code, self.last).astype(np.uint32) | sign).astype(np.uint8)


E4M3 = SmallFloat(4, 3, 7, 0x7E)
E5M2 = SmallFloat(5, 2, 15, 0x7B)
E2M1 = SmallFloat(2, 1, 1, 0x7)
NF4_LEVELS = np.array(
    [
        -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
        -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
        0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
    ],
    np.float32,
)  # fmt: skip
ELEMENTS = {"fp8-e4m3": E4M3, "fp8-e5m2": E5M2, "mxfp8": E4M3, "mxfp4": E2M1, "nvfp4": E2M1}
#: Exponent of an element's largest value, for the shared power of two.
_MX_EXPONENT = {"mxfp8": 8, "mxfp4": 2}
_VALUES = {name: element.values() for name, element in ELEMENTS.items()}
_NF4_MIDDLES = (NF4_LEVELS[1:] + NF4_LEVELS[:-1]) * np.float32(0.5)
#: Numbers of the layouts in native/small.inl.
_KINDS = {"fp8-e4m3": 0, "fp8-e5m2": 1, "mxfp8": 2, "mxfp4": 3, "nvfp4": 4, "nf4": 5}
_TABLES = {"nf4": NF4_LEVELS, "mxfp4": _VALUES["mxfp4"], "nvfp4": _VALUES["nvfp4"]}


class FloatCodec:
    """The family `float` of gpu_kernels.blocks: native where that was built, numpy otherwise, the same bytes."""

    def quantize(
        self, weight: _Float32, format: BlockFormat, *, fast: int = 1, **options: bool
    ) -> tuple[Bytes, _Float32 | None]:
        native = library()
        if native is None or weight.size == 0:
            return quantize_reference(weight, format)
        return _native_quantize(native, weight, format, fast)

    def dequantize(
        self, blocks: Bytes, scales: _Float32 | None, format: BlockFormat, columns: int, *, fast: int = 1
    ) -> _Float32:
        native = library()
        if native is None or blocks.size == 0:
            return dequantize_reference(blocks, scales, format, columns)
        return _native_dequantize(native, blocks, scales, format, columns, fast)

    def largest(self, format: BlockFormat) -> float:
        """float16 scales end at 65504; other scales reach far beyond any weight."""
        return 65504.0 if format.layout == "nf4" else 2.0**100


def quantize_reference(weight: _Float32, format: BlockFormat) -> tuple[Bytes, _Float32 | None]:
    """Blocks of finite float32 (rows, columns) weights and the scales beside them, in numpy."""
    rows, columns = weight.shape
    x = in_blocks(weight, format.block).reshape(rows, format.blocks(columns), format.block)
    outer = _outer(weight, format)
    if weight.size == 0:
        return np.zeros((rows, format.blocks(columns) * format.block_bytes), np.uint8), outer
    with np.errstate(all="ignore"):
        scale, codes = _MAKERS[format.layout](x, format.layout, outer)
    packed = _pack_codes(codes, format.code_bits)
    data = packed if scale is None else np.concatenate([scale, packed], axis=-1)
    return np.ascontiguousarray(data.reshape(rows, -1)), outer


def dequantize_reference(blocks: Bytes, scales: _Float32 | None, format: BlockFormat, columns: int) -> _Float32:
    """The inverse of `quantize_reference`: float32 (rows, columns)."""
    rows = blocks.shape[0]
    if blocks.size == 0:
        return np.zeros((rows, columns), np.float32)
    parts = np.ascontiguousarray(blocks).reshape(rows, -1, format.block_bytes)
    head = format.block_bytes - -(-format.block * format.code_bits // 8)
    codes = _unpack_codes(parts[..., head:], format.code_bits, format.block)
    values = NF4_LEVELS[codes] if format.layout == "nf4" else _VALUES[format.layout][codes]
    with np.errstate(all="ignore"):
        if format.outer == "row" and scales is not None:
            values = values * scales[:, :, None]
        elif head:
            values = values * _block_scale(parts[..., :head], format.layout, scales)[..., None]
    return np.ascontiguousarray(values.reshape(rows, -1)[:, :columns])


def _native_quantize(native: Any, weight: _Float32, format: BlockFormat, fast: int) -> tuple[Bytes, _Float32 | None]:
    rows, columns = weight.shape
    weight = np.require(weight, requirements=("C", "A"))
    out = np.empty((rows, format.row_bytes(columns)), np.uint8)
    outer = None
    if format.outer == "tensor":
        top = np.float32(native.bw_absmax(weight.ctypes.data, weight.size, fast))
        outer = np.full((1, 1), np.maximum(top / np.float32(6 * 448), TINY), np.float32)
    elif format.outer:
        outer = np.empty((rows, 1), np.float32)

    def work(start: int, stop: int) -> int:
        scales = None if outer is None else outer[start if len(outer) > 1 else 0 :].ctypes.data
        native.bw_small_quantize(
            weight[start:].ctypes.data, stop - start, columns, _KINDS[format.layout], format.block,
            format.block_bytes, _NF4_MIDDLES.ctypes.data, scales, out[start:].ctypes.data, fast,
        )  # fmt: skip
        return 0

    over_rows(rows, columns, work)
    return out, outer


def _native_dequantize(
    native: Any, blocks: Bytes, scales: _Float32 | None, format: BlockFormat, columns: int, fast: int
) -> _Float32:
    blocks = np.ascontiguousarray(blocks)
    outer = None if scales is None else np.require(scales, requirements=("C", "A"))
    table = _TABLES.get(format.layout)
    out = np.empty((blocks.shape[0], columns), np.float32)
    native.bw_small_dequantize(
        blocks.ctypes.data, blocks.shape[0], columns, _KINDS[format.layout], format.block, format.block_bytes,
        None if table is None else table.ctypes.data, None if outer is None else outer.ctypes.data, out.ctypes.data,
        fast,
    )  # fmt: skip
    return out


def _outer(weight: _Float32, format: BlockFormat) -> _Float32 | None:
    """Scales beside the blocks, (rows, 1) or (1, 1)."""
    if not format.outer:
        return None
    count = format.outer_scales(*weight.shape)
    if not count:
        return np.zeros((count, 1), np.float32)
    magnitude = np.abs(weight)
    if format.outer == "tensor":
        return np.full((1, 1), np.maximum(magnitude.max() / np.float32(6 * 448), TINY), np.float32)
    largest = np.float32(_VALUES[format.layout][ELEMENTS[format.layout].last])
    return np.asarray(np.maximum(magnitude.max(axis=1, keepdims=True) / largest, TINY), np.float32)


def _block_scale(head: Bytes, layout: str, outer: _Float32 | None) -> _Float32:
    """float32 (rows, blocks) scales of the stored bytes, the outer scale included."""
    if layout == "nf4":
        return np.ascontiguousarray(head).view("<f2")[..., 0].astype(np.float32)
    if layout == "nvfp4":
        assert outer is not None
        return np.asarray(_VALUES["mxfp8"][head[..., 0]] * outer[0, 0])
    return np.ldexp(np.float32(1), head[..., 0].astype(np.int32) - 127).astype(np.float32)


def _inverse(scale: _Float32) -> _Float32:
    return np.where(scale != 0, np.float32(1) / scale, np.float32(0)).astype(np.float32)


def _rows(x: _Float32, layout: str, outer: _Float32 | None) -> tuple[Bytes | None, Bytes]:
    assert outer is not None
    return None, ELEMENTS[layout].encode(x * _inverse(outer)[:, :, None])


def _shared_exponent(x: _Float32, layout: str, outer: _Float32 | None) -> tuple[Bytes | None, Bytes]:
    top = np.abs(x).max(axis=-1)
    first = np.frexp(top)[1] - 1 - _MX_EXPONENT[layout]
    best: tuple[_Float32, Bytes, Bytes] | None = None
    for more in (0, 1):
        power = np.where(top > 0, np.clip(first + more, -127, 127), -127).astype(np.int32)
        scale = np.ldexp(np.float32(1), power).astype(np.float32)[..., None]
        codes = ELEMENTS[layout].encode(x * _inverse(scale))
        off = _VALUES[layout][codes] * scale - x
        error, stored = lane_sum(off * off), (power + 127).astype(np.uint8)[..., None]
        if best is None:
            best = error, stored, codes
        else:
            better = (error < best[0])[..., None]
            best = error, np.where(better, stored, best[1]), np.where(better, codes, best[2])
    assert best is not None
    return best[1], best[2]


def _nvfp4(x: _Float32, layout: str, outer: _Float32 | None) -> tuple[Bytes | None, Bytes]:
    assert outer is not None
    top = np.abs(x).max(axis=-1)
    stored = E4M3.encode(top * (np.float32(1) / (np.float32(6) * outer[0, 0])))[..., None]
    return stored, E2M1.encode(x * _inverse(_block_scale(stored, layout, outer))[..., None])


def _nf4(x: _Float32, layout: str, outer: _Float32 | None) -> tuple[Bytes | None, Bytes]:
    half = np.abs(x).max(axis=-1).astype(np.float16)
    scaled = x * _inverse(half.astype(np.float32))[..., None]
    codes = np.searchsorted(_NF4_MIDDLES, scaled.ravel(), side="left").reshape(x.shape).astype(np.uint8)
    return np.ascontiguousarray(half[..., None], "<f2").view(np.uint8), codes


_MAKERS = {
    "fp8-e4m3": _rows, "fp8-e5m2": _rows, "mxfp8": _shared_exponent, "mxfp4": _shared_exponent, "nvfp4": _nvfp4,
    "nf4": _nf4,
}  # fmt: skip


def _pack_codes(codes: Bytes, bits: int) -> Bytes:
    if bits == 8:
        return codes
    half = -(-codes.shape[-1] // 2)
    high = np.zeros((*codes.shape[:-1], half), np.uint8)
    high[..., : codes.shape[-1] - half] = codes[..., half:]
    return np.asarray(codes[..., :half] | high << np.uint8(4))


def _unpack_codes(packed: Bytes, bits: int, count: int) -> Bytes:
    if bits == 8:
        return packed
    return np.concatenate([packed & np.uint8(15), packed >> np.uint8(4)], axis=-1)[..., :count]
