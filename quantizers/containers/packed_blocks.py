"""Blocks of `packed` checkpoints to weights: numpy only, nothing of bitwright. Stands beside packed_reader.py.

    values(blocks, scales, format, columns) -> float32 (rows, columns)
    digits(words, levels, count) -> (rows, count) codes

Written from docs/packed.md section 3 and on purpose not from the code that writes, which the tests compare it with.
"""

from __future__ import annotations

from typing import Any

import numpy as np

if __package__:
    from . import packed_grids
else:
    import packed_grids  # type: ignore[import-not-found, no-redef]

Array = np.ndarray[Any, Any]
IQ4 = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32)
NF4 = np.array(
    [
        -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
        -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
        0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
    ],
    np.float32,
)  # fmt: skip
#: Weights and bytes of a block.
SIZES = {
    "q4_0": (32, 18), "q4_1": (32, 20), "q5_0": (32, 22), "q5_1": (32, 24), "q8_0": (32, 34), "iq4_nl": (32, 18),
    "q2_k": (256, 84), "q3_k": (256, 110), "q4_k": (256, 144), "q5_k": (256, 176), "q6_k": (256, 210),
    "iq4_xs": (256, 136), "fp8-e4m3": (1, 1), "fp8-e5m2": (1, 1), "mxfp8": (32, 33), "mxfp4": (32, 17),
    "nvfp4": (16, 9),
}  # fmt: skip


def half(b: Array, at: int) -> Array:
    """float16 at byte `at` of every block, as a float32 column."""
    return np.ascontiguousarray(b[:, at : at + 2]).view("<f2").astype(np.float32)


def nibbles(b: Array, each: int = 16) -> Array:
    """Per `each` bytes: their low nibbles, then their high nibbles."""
    parts = b.reshape(b.shape[0], -1, each)
    return np.concatenate([parts & 15, parts >> 4], axis=2).reshape(b.shape[0], -1)


def pairs(b: Array, each: int) -> Array:
    """Per `each` bytes: their four 2-bit fields, lowest first."""
    parts = b.reshape(b.shape[0], -1, each)
    return np.concatenate([parts >> s & 3 for s in (0, 2, 4, 6)], axis=2).reshape(b.shape[0], -1)


def bits(b: Array) -> Array:
    """32 bytes: bit 0 of each, then bit 1 of each, ..."""
    return np.concatenate([b >> s & 1 for s in range(8)], axis=1)


def six(b: Array) -> tuple[Array, Array]:
    """12 bytes: 8 scales and 8 minima of 6 bits."""
    a, c, d = b[:, 0:4], b[:, 4:8], b[:, 8:12]
    scales = np.concatenate([a & 63, (d & 15) | (a >> 6 << 4)], axis=1)
    return scales, np.concatenate([c & 63, (d >> 4) | (c >> 6 << 4)], axis=1)


def q3_scales(b: Array) -> Array:
    """12 bytes: 16 scales of 6 bits, less 32."""
    low = np.concatenate([b[:, :8] & 15, b[:, :8] >> 4], axis=1)
    high = np.concatenate([b[:, 8:] >> s & 3 for s in (0, 2, 4, 6)], axis=1)
    return np.asarray((low | high << 4).astype(np.float32) - 32)


def spread(scale: Array, level: Array, offset: Array | None = None) -> Array:
    """scale * level [+ offset], each group's numbers repeated over its weights."""
    each = level.shape[1] // scale.shape[1]
    out = np.repeat(scale, each, axis=1) * level.astype(np.float32)
    return np.asarray(out if offset is None else out + np.repeat(offset, each, axis=1))


def ggml(b: Array, name: str) -> Array:
    """float32 (blocks, weights) of (blocks, bytes)."""
    if name in ("q2_k", "q4_k", "q5_k"):
        at = 80 if name == "q2_k" else 0
        d, m = half(b, at), half(b, at + 2)
        scales, mins = (b[:, :16] & 15, b[:, :16] >> 4) if name == "q2_k" else six(b[:, 4:16])
        q = pairs(b[:, 16:80], 32) if name == "q2_k" else nibbles(b[:, -128:], 32)
        q = q | bits(b[:, 16:48]) << 4 if name == "q5_k" else q
        return spread(d * scales.astype(np.float32), q, -(m * mins.astype(np.float32)))
    if name == "q3_k":
        q = pairs(b[:, 32:96], 32).astype(np.float32) - 4 * (1 - bits(b[:, :32]).astype(np.float32))
        return spread(half(b, 108) * q3_scales(b[:, 96:108]), q)
    if name == "q6_k":
        q = nibbles(b[:, :128], 64) | pairs(b[:, 128:192], 32) << 4
        return spread(half(b, 208) * b[:, 192:208].view(np.int8).astype(np.float32), q.astype(np.float32) - 32)
    if name == "iq4_xs":
        low = (b[:, 4:8, None] >> np.array([0, 4], np.uint8) & 15).reshape(-1, 8)
        high = (b[:, 2:4, None] >> np.array([0, 2, 4, 6], np.uint8) & 3).reshape(-1, 8)
        return spread(half(b, 0) * ((low | high << 4).astype(np.float32) - 32), IQ4[nibbles(b[:, 8:])])
    if name == "q8_0":
        return spread(half(b, 0), b[:, 2:].view(np.int8))
    q = nibbles(b[:, -16:])
    if name in ("q5_0", "q5_1"):
        q = q | np.unpackbits(b[:, -20:-16], axis=1, bitorder="little") << 4
    if name == "iq4_nl":
        return spread(half(b, 0), IQ4[q])
    if name in ("q4_1", "q5_1"):
        return spread(half(b, 0), q, half(b, 2))
    return spread(half(b, 0), q.astype(np.float32) - (16 if name == "q5_0" else 8))


def digits(words: Array, levels: int, count: int) -> Array:
    """(rows, words) -> (rows, count) codes: each word holds the digits of a number in base `levels`, lowest first."""
    each = max(k for k in range(33) if levels**k <= 2**32)
    places = np.array([levels**i for i in range(each)], np.uint64)
    found = words.astype(np.uint64)[:, :, None] // places % np.uint64(levels)
    return np.asarray(found.reshape(words.shape[0], -1)[:, :count].astype(np.uint8))


def small(exponent: int, mantissa: int, bias: int) -> Array:
    """The float32 value of every code of a small float: non-negative codes, then negative ones."""
    code = np.arange(1 << (exponent + mantissa))
    power, digit = code >> mantissa, code & ((1 << mantissa) - 1)
    whole = digit + (1 << mantissa) * (power > 0)
    value = whole * 2.0 ** (np.maximum(power, 1) - bias - mantissa)
    return np.concatenate([value, -value]).astype(np.float32)


def floats(b: Array, scales: Array | None, name: str, each: int) -> Array:
    """float32 (rows, blocks, each) of (rows, blocks, bytes); e2m1, e4m3 and e5m2 without NaN and infinity."""
    if name.startswith("fp8"):
        assert scales is not None
        return np.asarray((small(4, 3, 7) if name == "fp8-e4m3" else small(5, 2, 15))[b] * scales[:, :, None])
    if name == "mxfp8":
        return np.asarray(small(4, 3, 7)[b[..., 1:]] * np.exp2(b[..., :1].astype(np.float32) - 127))
    head = 2 if name.startswith("nf4") else 1
    codes = np.concatenate([b[..., head:] & 15, b[..., head:] >> 4], axis=2)[..., :each]
    if head == 2:
        return np.asarray(NF4[codes] * np.ascontiguousarray(b[..., :2]).view("<f2").astype(np.float32))
    if scales is None:
        return np.asarray(small(2, 1, 1)[codes] * np.exp2(b[..., :1].astype(np.float32) - 127))
    return np.asarray(small(2, 1, 1)[codes] * (small(4, 3, 7)[b[..., :1]] * scales[0, 0]))


def values(blocks: Array, scales: Array | None, name: str, columns: int) -> Array:
    """float32 (rows, columns) weights of a unit in the format `name`."""
    rows = blocks.shape[0]
    if name.startswith("higgs"):
        return packed_grids.values(blocks, name, columns)
    if name.startswith("nf4"):
        each = int(name.removeprefix("nf4-g")) if "-" in name else 64
        size = 2 + (each + 1) // 2
    else:
        each, size = SIZES[name]
    if not name.startswith(("q", "iq")):
        out = floats(blocks.reshape(rows, -1, size), scales, name, each)
    else:
        out = ggml(blocks.reshape(-1, size), name)
    return np.asarray(out.reshape(rows, -1)[:, :columns], np.float32)
