"""The part of the stand-alone reader for units in several formats (docs/packed.md section 4): numpy only.

Nothing of bitwright is imported. Copy it beside packed_reader.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
#: What the names of a unit's tensors end in, whatever its format.
SUFFIXES = [
    number + part
    for number in ("", *(f".{i}" for i in range(8)))
    for part in ("", ".codes", ".scales", ".zeros", ".blocks", ".parts")
]
NAME = re.compile(r"(row|column|group)(?::([0-9]+))?\((.+)\)")


def values(
    entry: Mapping[str, Any],
    tensors: Mapping[str, Array],
    unit: Callable[[Mapping[str, Any], Mapping[str, Array]], Array],
) -> Array:
    """float32 (out, in). unit: reads a matrix of one format, given its manifest entry and its tensors."""
    match, (out, inputs), name = NAME.fullmatch(entry["format"]), entry["shape"], entry["name"]
    assert match is not None
    kind, size, members = match[1], int(match[2] or 0), match[3].split(",")
    if kind == "row":
        lines, length, block = out, inputs, size or 1
    elif kind == "column":
        lines, length, block = (inputs // size, out * size, 1) if size else (inputs, out, 1)
    else:
        length, block = int(members[0].rpartition("-g")[2]), 1
        lines = out * inputs // length
    parts = -(-lines // block)
    choice = np.repeat(_digits(tensors[f"{name}.parts"].view(np.uint8)[None, :], 3, parts)[0], block)[:lines]
    found = np.empty((lines, length), np.float32)
    for number, member in enumerate(members):
        mine = np.flatnonzero(choice == number)
        if len(mine):
            found[mine] = _piece(f"{name}.{number}", member, (len(mine), length), tensors, unit)
    if kind == "column":
        found = found.reshape(lines, out, size).transpose(1, 0, 2) if size else found.T
    return found.reshape(out, inputs)


def _piece(name: str, member: str, shape: tuple[int, int], tensors: Mapping[str, Array], unit: Any) -> Array:
    """The lines of one member: a matrix of that format, but zero points lie by line, padded to whole bytes."""
    entry, mine = {"name": name, "shape": shape, "format": member}, dict(tensors)
    if f"{name}.zeros" in tensors:
        levels = re.match(r"int(-l)?([0-9]+)", member)
        assert levels is not None
        bits = (int(levels[2]) - 1).bit_length() if levels[1] else int(levels[2])
        zeros = _digits(tensors[f"{name}.zeros"], bits, tensors[f"{name}.scales"].shape[1])
        stream = np.zeros((zeros.shape[1], -(-shape[0] * bits // 32) * 32), np.uint8)
        stream[:, : shape[0] * bits] = ((zeros.T[:, :, None] >> np.arange(bits)) & 1).reshape(zeros.shape[1], -1)
        mine[f"{name}.zeros"] = np.packbits(stream, axis=1, bitorder="little").view(np.uint32)
    return np.asarray(unit(entry, mine))


def _digits(stored: Array, bits: int, count: int) -> Array:
    """uint8 (rows, bytes) -> (rows, count): number i is bits [i*b, (i+1)*b) of its row."""
    stream = np.unpackbits(np.ascontiguousarray(stored), axis=1, bitorder="little")
    digits = stream[:, : count * bits].reshape(len(stored), count, bits)
    return np.packbits(digits, axis=2, bitorder="little")[:, :, 0]
