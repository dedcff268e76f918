"""ggml blocks in numpy: bytes to weights, and weights to bytes by rounding alone; the truth for the native kernels.

The five plain types (q4_0 to q8_0) are made exactly as ggml's reference makes them, so their bytes are equal to those
of its own tools; the types with sub-scales and iq4_nl are made by `block_search`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gpu_kernels.block_layouts import LAYOUTS, BlockLayout, Bytes

_Float32 = NDArray[np.float32]
#: Types whose codes follow from a block's range, without a search.
PLAIN = ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0")


def levels_of(codes: Bytes, layout: BlockLayout) -> _Float32:
    """What the codes stand for before scaling."""
    if layout.table:
        return np.asarray(layout.table, np.float32)[codes]
    if layout.signed == "codes":
        return codes.view(np.int8).astype(np.float32)
    return codes.astype(np.float32) - np.float32(layout.zero)


def scales_of(
    fields: dict[str, Bytes], halves: dict[str, NDArray[np.float16]], layout: BlockLayout
) -> tuple[_Float32, _Float32 | None]:
    """(scale, offset or None) of every group, float32 (blocks, groups): weight = scale * level + offset."""
    d = halves["d"].astype(np.float32)[:, None]
    m = halves["m"].astype(np.float32)[:, None] if layout.affine else None
    if not layout.sub:
        return d, m
    stored = fields["scales"]
    steps = stored.view(np.int8).astype(np.float32) if layout.signed == "scales" else stored - np.float32(layout.bias)
    return d * steps, None if m is None else -(m * fields["mins"].astype(np.float32))


def dequantize_blocks(blocks: Bytes, name: str, columns: int) -> _Float32:
    """float32 (rows, columns) weights of (rows, bytes) blocks of a ggml type."""
    layout = LAYOUTS[name]
    rows = blocks.shape[0]
    if blocks.size == 0:
        return np.zeros((rows, columns), np.float32)
    fields, halves = layout.unpack(np.ascontiguousarray(blocks).reshape(-1, layout.nbytes))
    scale, offset = scales_of(fields, halves, layout)
    level = levels_of(fields["codes"], layout).reshape(-1, layout.groups, layout.block // layout.groups)
    with np.errstate(invalid="ignore", over="ignore"):
        values = scale[:, :, None] * level
        if offset is not None:
            values += offset[:, :, None]
    return values.reshape(rows, -1)[:, :columns]


def in_blocks(weight: _Float32, block: int) -> _Float32:
    """(blocks, block) weights, row after row, the last block of a row filled up with zeros."""
    rows, columns = weight.shape
    short = -columns % block
    if short:
        weight = np.concatenate([weight, np.zeros((rows, short), np.float32)], axis=1)
    return np.ascontiguousarray(weight, np.float32).reshape(-1, block)


def quantize_plain(x: _Float32, layout: BlockLayout) -> Bytes:
    """Blocks of q4_0, q4_1, q5_0, q5_1, q8_0 of (blocks, 32) finite weights, as ggml's reference makes them."""
    top = np.float32((1 << layout.bits) - 1)
    halves = {}
    if layout.signed:
        d = np.abs(x).max(axis=1) / np.float32(127)
        scaled = x * _inverse(d)[:, None]
        codes = np.trunc(scaled + np.copysign(np.float32(0.5), scaled)).astype(np.int8).view(np.uint8)
    elif layout.affine:
        low = x.min(axis=1) + np.float32(0)  # -0 becomes 0
        d = (x.max(axis=1) - low) / top + np.float32(0)
        codes = np.minimum((x - low[:, None]) * _inverse(d)[:, None] + np.float32(0.5), top).astype(np.uint8)
        halves["m"] = low.astype(np.float16)
    else:
        extreme = np.take_along_axis(x, np.abs(x).argmax(axis=1)[:, None], axis=1)[:, 0]
        d = extreme / np.float32(-layout.zero)
        codes = np.minimum(x * _inverse(d)[:, None] + np.float32(layout.zero + 0.5), top).astype(np.uint8)
    with np.errstate(over="ignore"):
        return layout.pack({"codes": codes}, {"d": d.astype(np.float16), **halves})


def _inverse(d: _Float32) -> _Float32:
    """1 / d, and 0 where d is 0 (or so small that 1 / d is not finite)."""
    with np.errstate(divide="ignore", over="ignore"):
        inverse = np.float32(1) / d
    return np.where(np.isfinite(inverse), inverse, np.float32(0)).astype(np.float32)
