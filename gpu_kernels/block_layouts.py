"""Where every bit of a ggml block lies, as tables that pack and unpack in numpy (research/07 section 2).

A block is codes with sub-scales and sub-minima (small unsigned integers) and one or two float16 numbers. A plane says
where some bits of one of these fields lie: value i of the field has its bits [low, low + bits) at byte `at[i]`, shift
`shift[i]`. A layout is a list of planes; packing walks it forwards and unpacking backwards, so the two cannot differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
_Index = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Plane:
    """Some bits of one field. at, shift: one entry for each value of the field."""

    field: str
    low: int
    bits: int
    at: _Index
    shift: _Index


@dataclass(frozen=True, eq=False)
class BlockLayout:
    """halves: byte offset of the float16 numbers `d` and `m`. sub: weights under one sub-scale.

    A weight is d * (scale - bias) * level - m * min with sub-scales, d * level + m without; level = code - zero, or
    table[code]. `signed` names the field that holds two's complement numbers. tries (on each side), refinements:
    how far the search goes.
    """

    name: str
    block: int
    nbytes: int
    planes: tuple[Plane, ...]
    halves: Mapping[str, int]
    zero: int = 0
    table: tuple[int, ...] = ()
    sub: int = 0
    scale_top: int = 0
    bias: int = 0
    signed: str = ""
    bits: int = 4
    tries: int = 8
    refinements: int = 2

    @property
    def groups(self) -> int:
        """Groups of weights under one scale in a block."""
        return self.block // self.sub if self.sub else 1

    @property
    def affine(self) -> bool:
        """Whether a group has an offset."""
        return "m" in self.halves

    def pack(self, fields: Mapping[str, Bytes], halves: Mapping[str, NDArray[np.float16]]) -> Bytes:
        """(blocks, nbytes) bytes of fields (blocks, values) and float16 numbers (blocks,)."""
        count = next(iter(halves.values())).shape[0]
        out = np.zeros((count, self.nbytes), np.uint8)
        for plane in self.planes:
            values = (fields[plane.field] >> np.uint8(plane.low)) & np.uint8((1 << plane.bits) - 1)
            for shift in np.unique(plane.shift):
                where = np.flatnonzero(plane.shift == shift)
                out[:, plane.at[where]] |= values[:, where] << np.uint8(shift)
        for name, offset in self.halves.items():
            out[:, offset : offset + 2] = np.ascontiguousarray(halves[name], "<f2").view(np.uint8).reshape(count, 2)
        return out

    def unpack(self, blocks: Bytes) -> tuple[dict[str, Bytes], dict[str, NDArray[np.float16]]]:
        """The inverse of `pack`."""
        fields: dict[str, Bytes] = {}
        for plane in self.planes:
            values = (blocks[:, plane.at] >> plane.shift.astype(np.uint8)) & np.uint8((1 << plane.bits) - 1)
            found = fields.setdefault(plane.field, np.zeros((blocks.shape[0], plane.at.size), np.uint8))
            found |= values << np.uint8(plane.low)
        halves = {
            name: np.ascontiguousarray(blocks[:, offset : offset + 2]).view("<f2")[:, 0].astype(np.float16)
            for name, offset in self.halves.items()
        }
        return fields, halves


def _index(count: int) -> _Index:
    return np.arange(count, dtype=np.int64)


def _halves(field: str, offset: int, count: int, size: int = 32, low: int = 0) -> Plane:
    """Nibbles: within `size` values, byte j holds value j below and value j + size/2 above."""
    i = _index(count)
    inside, half = i % size, size // 2
    return Plane(field, low, 4, offset + i // size * half + inside % half, inside // half * 4)


def _whole(field: str, offset: int, count: int) -> Plane:
    """A byte a value."""
    return Plane(field, 0, 8, offset + _index(count), np.zeros(count, np.int64))


def _high_word(offset: int) -> Plane:
    """Bit 4 of 32 codes as a little-endian 32-bit word."""
    i = _index(32)
    return Plane("codes", 4, 1, offset + i // 8, i % 8)


def _stride(low: int, bits: int, offset: int, half: int, each: int) -> Plane:
    """Codes of a superblock: within `half` codes, `each` bytes, byte l holds codes l, l + each, l + 2 each, ..."""
    i = _index(256)
    return Plane("codes", low, bits, offset + i // half * each + i % each, i % half // each * bits)


def _one_bit(low: int, offset: int) -> Plane:
    """One bit of a superblock's codes: byte l, bit j holds code 32 j + l."""
    i = _index(256)
    return Plane("codes", low, 1, offset + i % 32, i // 32)


def _six_bits(offset: int) -> tuple[Plane, ...]:
    """q4_k and q5_k: 8 scales and 8 minima of 6 bits in 12 bytes; the later four have their high bits apart."""
    first, later = _index(4), _index(4) + 4
    none = np.zeros(4, np.int64)
    at = {"scales": offset, "mins": offset + 4}
    planes = []
    for name in ("scales", "mins"):
        shift = none if name == "scales" else none + 4
        low = Plane(name, 0, 4, np.concatenate([at[name] + first, offset + 4 + later]), np.concatenate([none, shift]))
        high = Plane(name, 4, 2, np.concatenate([at[name] + first] * 2), np.concatenate([none + 4, none + 6]))
        planes += [low, high]
    return tuple(planes)


def _q3_scales(offset: int) -> tuple[Plane, ...]:
    """16 scales of 6 bits in 12 bytes: low nibbles as halves of 8 bytes, then 2 high bits each, 4 a byte."""
    i = _index(16)
    return (
        Plane("scales", 0, 4, offset + i % 8, i // 8 * 4),
        Plane("scales", 4, 2, offset + 8 + i % 4, i // 4 * 2),
    )


def _pairs(field: str, bits: int, low: int, offset: int, count: int) -> Plane:
    """Values side by side, 8 / bits a byte."""
    i, each = _index(count), 8 // bits
    return Plane(field, low, bits, offset + i // each, i % each * bits)


_Q2_SCALES = (
    Plane("scales", 0, 4, _index(16), np.zeros(16, np.int64)),
    Plane("mins", 0, 4, _index(16), np.full(16, 4, np.int64)),
)
#: ggml's non-linear 4-bit levels, shared by iq4_nl and iq4_xs.
IQ4_LEVELS = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)

LAYOUTS = {
    layout.name: layout
    for layout in (
        BlockLayout("q4_0", 32, 18, (_halves("codes", 2, 32),), {"d": 0}, zero=8),
        BlockLayout("q4_1", 32, 20, (_halves("codes", 4, 32),), {"d": 0, "m": 2}),
        BlockLayout("q5_0", 32, 22, (_halves("codes", 6, 32), _high_word(2)), {"d": 0}, zero=16, bits=5),
        BlockLayout("q5_1", 32, 24, (_halves("codes", 8, 32), _high_word(4)), {"d": 0, "m": 2}, bits=5),
        BlockLayout("q8_0", 32, 34, (_whole("codes", 2, 32),), {"d": 0}, signed="codes", bits=8),
        BlockLayout("iq4_nl", 32, 18, (_halves("codes", 2, 32),), {"d": 0}, table=IQ4_LEVELS, tries=6),
        BlockLayout(
            "q2_k", 256, 84, (_stride(0, 2, 16, 128, 32), *_Q2_SCALES), {"d": 80, "m": 82},
            sub=16, scale_top=15, bits=2,
        ),
        BlockLayout(
            "q3_k", 256, 110, (_stride(0, 2, 32, 128, 32), _one_bit(2, 0), *_q3_scales(96)), {"d": 108},
            zero=4, sub=16, scale_top=63, bias=32, bits=3, tries=2, refinements=0,
        ),
        BlockLayout(
            "q4_k", 256, 144, (_stride(0, 4, 16, 64, 32), *_six_bits(4)), {"d": 0, "m": 2}, sub=32, scale_top=63,
        ),
        BlockLayout(
            "q5_k", 256, 176, (_stride(0, 4, 48, 64, 32), _one_bit(4, 16), *_six_bits(4)), {"d": 0, "m": 2},
            sub=32, scale_top=63, bits=5,
        ),
        BlockLayout(
            "q6_k", 256, 210, (_stride(0, 4, 0, 128, 64), _stride(4, 2, 128, 128, 32), _whole("scales", 192, 16)),
            {"d": 208}, zero=32, sub=16, scale_top=255, bias=128, signed="scales", bits=6,
        ),
        BlockLayout(
            "iq4_xs", 256, 136,
            (_halves("codes", 8, 256), _pairs("scales", 4, 0, 4, 8), _pairs("scales", 2, 4, 2, 8)), {"d": 0},
            table=IQ4_LEVELS, sub=32, scale_top=63, bias=32, tries=6, refinements=1,
        ),
    )
}  # fmt: skip
