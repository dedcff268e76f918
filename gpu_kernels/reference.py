"""The dense packer in numpy: the truth that every native kernel must equal.

A row of codes of b bits is a little-endian bit stream: code i occupies bits [i*b, (i+1)*b), cut into 32-bit words, the
last word filled up with zeros (research/07 section 2; compressed-tensors >= 0.18 and MLX use the same stream).

Eight codes of b bits are exactly b bytes. So eight code bytes are read as one 64-bit number, its lanes are pushed
together in three steps (8 -> 16 -> 32 -> 64 bits a lane, each keeping the used low part), and the b low bytes of the
result are the stream. Unpacking runs the same three steps backwards.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bitwright.core.errors import InvalidInput

#: Codes handled at once, so that temporaries stay in the cache and memory stays bounded.
_BLOCK_CODES = 1 << 16
_LANES = (8, 16, 32)


def words(columns: int, bits: int) -> int:
    """32-bit words of a row of `columns` codes."""
    return -(-columns * bits // 32)


def _check_bits(bits: int) -> None:
    if not 1 <= bits <= 8:
        raise InvalidInput("the width of a code is out of range", expected="1 to 8 bits", got=str(bits))


def _low_mask(lane: int, used: int) -> np.uint64:
    """Ones in the low `used` bits of every second lane of `lane` bits."""
    one = (1 << used) - 1
    return np.uint64(sum(one << start for start in range(0, 64, 2 * lane)))


def _squeeze(eight: NDArray[np.uint64], bits: int) -> NDArray[np.uint64]:
    """Eight codes in eight bytes -> 8*bits contiguous low bits."""
    for step, lane in enumerate(_LANES):
        used = bits << step
        if used == lane:
            continue
        low = _low_mask(lane, used)
        high = (eight >> np.uint64(lane - used)) & np.uint64(int(low) << used)
        eight = (eight & low) | high
    return eight


def _spread(stream: NDArray[np.uint64], bits: int) -> NDArray[np.uint64]:
    """The inverse of `_squeeze`."""
    for step, lane in reversed(list(enumerate(_LANES))):
        used = bits << step
        if used == lane:
            continue
        low = _low_mask(lane, used)
        high = (stream << np.uint64(lane - used)) & np.uint64(int(low) << lane)
        stream = (stream & low) | high
    return stream


def pack(codes: NDArray[np.uint8], bits: int) -> NDArray[np.uint32]:
    """Pack (rows, columns) codes into (rows, ceil(columns*bits/32)) little-endian words.

    Raises InvalidInput for widths outside 1..8, other dtypes, and codes that need more than `bits` bits.
    """
    _check_bits(bits)
    if codes.ndim != 2 or codes.dtype != np.uint8:
        raise InvalidInput("codes must be a matrix of bytes", expected="uint8 (rows, columns)", got=_describe(codes))
    rows, columns = codes.shape
    if bits < 8 and codes.size and int(codes.max()) >> bits:
        raise InvalidInput("a code does not fit its width", expected=f"codes below {1 << bits}", got=str(codes.max()))
    out = np.zeros((rows, words(columns, bits)), dtype="<u4")
    if out.size == 0:
        return out
    step = max(1, _BLOCK_CODES // columns)
    for start in range(0, rows, step):
        out[start : start + step].view(np.uint8)[:] = _pack_rows(codes[start : start + step], bits, out.shape[1] * 4)
    return out


def _pack_rows(codes: NDArray[np.uint8], bits: int, row_bytes: int) -> NDArray[np.uint8]:
    rows, columns = codes.shape
    padded = -(-columns // 32) * 32
    if padded != columns or not codes.flags.c_contiguous:
        wide = np.zeros((rows, padded), dtype=np.uint8)
        wide[:, :columns] = codes
        codes = wide
    stream = _squeeze(codes.view("<u8"), bits)
    octets = np.ascontiguousarray(stream, dtype="<u8").view(np.uint8).reshape(rows, padded // 8, 8)[:, :, :bits]
    return octets.reshape(rows, padded // 8 * bits)[:, :row_bytes]


def unpack(packed: NDArray[np.uint32], bits: int, columns: int) -> NDArray[np.uint8]:
    """Read (rows, columns) codes back from (rows, words) words. Raises InvalidInput when the words do not fit."""
    _check_bits(bits)
    if packed.ndim != 2 or packed.dtype.itemsize != 4 or packed.dtype.kind not in "ui":
        raise InvalidInput("packed codes must be 32-bit words", expected="(rows, words)", got=_describe(packed))
    rows, have = packed.shape
    if have != words(columns, bits):
        raise InvalidInput(
            "packed codes have the wrong size",
            expected=f"{words(columns, bits)} words a row for {columns} codes of {bits} bits",
            got=f"{have} words",
        )
    out = np.empty((rows, columns), dtype=np.uint8)
    if out.size == 0:
        return out
    step = max(1, _BLOCK_CODES // columns)
    for start in range(0, rows, step):
        out[start : start + step] = _unpack_rows(packed[start : start + step], bits, columns)
    return out


def _unpack_rows(packed: NDArray[np.uint32], bits: int, columns: int) -> NDArray[np.uint8]:
    rows, have = packed.shape
    eights = -(-columns // 8)
    octets = np.zeros((rows, max(eights * bits, have * 4)), dtype=np.uint8)
    octets[:, : have * 4] = np.ascontiguousarray(packed, dtype=packed.dtype.newbyteorder("<")).view(np.uint8)
    wide = np.zeros((rows, eights, 8), dtype=np.uint8)
    wide[:, :, :bits] = octets[:, : eights * bits].reshape(rows, eights, bits)
    codes = _spread(wide.view("<u8"), bits)
    return codes.view(np.uint8).reshape(rows, eights * 8)[:, :columns]


def checksum(data: NDArray[np.uint8]) -> int:
    """Sum over 32-bit words w[i] * (2 i + 1 mod 2^32), modulo 2^64; whole words."""
    stream, total = data.view("<u4"), 0
    for start in range(0, stream.size, 1 << 18):
        part = stream[start : start + (1 << 18)].astype(np.uint64)
        places = (2 * np.arange(start, start + part.size, dtype=np.uint64) + 1) & np.uint64(0xFFFFFFFF)
        total += int((part * places).sum(dtype=np.uint64))
    return total % 2**64


def _describe(array: NDArray[np.generic]) -> str:
    return f"{array.dtype} {array.shape}"
