"""Integer formats as ggml's legacy blocks: 32 codes and one float16 scale, bit for bit what they mean.

q4_0, q5_0, q8_0 hold weight = (code - 2^(b-1)) * scale, as int4-, int5- and int8-sym-g32 do (research/07 section 2).
Block layouts: q4_0 = scale, then byte j = code j | code (j + 16) << 4; q5_0 = scale, 32 fifth bits, then as q4_0;
q8_0 = scale, then signed bytes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.core.errors import Unsupported
from bitwright.core.formats import BlockFormat, Format, IntFormat
from bitwright.core.ggml import GGML_INTS
from quantizers.base import Blocks, Quantized, Stored

BLOCK = 32


def encode_blocks(value: Stored) -> NDArray[np.uint8]:
    """uint8 (out, bytes a row). Raises Unsupported for a value that has no block form."""
    if isinstance(value, Blocks):
        return value.data
    if not isinstance(value, Quantized) or value.format.name not in GGML_INTS:
        raise Unsupported("this value has no block form in GGUF files", got=value.format.name)
    rows, columns = value.shape
    codes = value.codes.reshape(rows, columns // BLOCK, BLOCK)
    scales = np.ascontiguousarray(value.scales.astype("<f2")).view(np.uint8).reshape(rows, columns // BLOCK, 2)
    parts = [scales, *_PACK[value.format.width](codes)]
    return np.ascontiguousarray(np.concatenate(parts, axis=-1).reshape(rows, -1))


def decode_blocks(data: NDArray[np.uint8], format: Format, columns: int) -> Stored:
    """The inverse of `encode_blocks`."""
    rows = data.shape[0]
    if isinstance(format, BlockFormat):
        return Blocks(data, None, columns, format)
    assert isinstance(format, IntFormat)
    blocks = data.reshape(rows, columns // BLOCK, -1)
    scales = np.ascontiguousarray(blocks[..., :2]).view("<f2").reshape(rows, columns // BLOCK)
    codes = _UNPACK[format.width](np.ascontiguousarray(blocks[..., 2:])).reshape(rows, columns)
    return Quantized(np.ascontiguousarray(codes), scales.astype(np.float16), None, format)


def _nibbles(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    low, high = codes[..., : BLOCK // 2] & 15, codes[..., BLOCK // 2 :] & 15
    return (low | (high << 4)).astype(np.uint8)


def _codes(nibbles: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.concatenate([nibbles & 15, nibbles >> 4], axis=-1)


def _pack5(codes: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    fifth = np.packbits((codes >> 4) & 1, axis=-1, bitorder="little")
    return [fifth, _nibbles(codes)]


def _unpack5(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    fifth = np.unpackbits(data[..., :4], axis=-1, bitorder="little")
    codes: NDArray[np.uint8] = (_codes(data[..., 4:]) | (fifth << 4)).astype(np.uint8)
    return codes


_PACK: dict[int, Any] = {4: lambda codes: [_nibbles(codes)], 5: _pack5, 8: lambda codes: [codes ^ 128]}
_UNPACK: dict[int, Any] = {4: _codes, 5: _unpack5, 8: lambda data: data ^ 128}
