"""The bytes of a GGUF file before its data: metadata and tensor table, version 3, little-endian, alignment 32."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bitwright.core.ggml import GgmlType
from quantizers.containers.tensorfile import FileLayout

ALIGNMENT = 32
_LETTERS = {"u32": ("I", 4), "i32": ("i", 5), "f32": ("f", 6), "u64": ("Q", 10)}
_BOOL, _STRING, _ARRAY = 7, 8, 9


@dataclass(frozen=True)
class Value:
    """A typed metadata value. kind: u32, i32, f32, u64, bool, string, or one of them with [] for an array."""

    kind: str
    value: Any


def encode_metadata(entries: Mapping[str, Value]) -> bytes:
    """The metadata section: key, type, value one after another."""
    return b"".join(_text(key) + _typed(entry) for key, entry in entries.items())


def _text(text: str) -> bytes:
    data = text.encode("utf-8")
    return struct.pack("<Q", len(data)) + data


def _number_of(kind: str) -> int:
    return {"bool": _BOOL, "string": _STRING}.get(kind) or _LETTERS[kind][1]


def _plain(kind: str, value: Any) -> bytes:
    if kind == "string":
        return _text(value)
    if kind == "bool":
        return bytes([bool(value)])
    return struct.pack("<" + _LETTERS[kind][0], value)


def _typed(entry: Value) -> bytes:
    if not entry.kind.endswith("[]"):
        return struct.pack("<I", _number_of(entry.kind)) + _plain(entry.kind, entry.value)
    kind = entry.kind[:-2]
    head = struct.pack("<IIQ", _ARRAY, _number_of(kind), len(entry.value))
    return head + b"".join(_plain(kind, value) for value in entry.value)


@dataclass(frozen=True)
class Stored:
    """A tensor of the file. shape: innermost last. parts: (name, bytes) of the pieces that are written one by one.

    data: content known beforehand, such as rope factors; such tensors have no parts and come first in the file.
    """

    name: str
    kind: GgmlType
    shape: tuple[int, ...]
    parts: tuple[tuple[str, int], ...] = ()
    data: bytes | None = None

    @property
    def nbytes(self) -> int:
        return self.kind.nbytes(self.shape)


def lay_out_gguf(file: str, metadata: Mapping[str, Value], tensors: Sequence[Stored]) -> FileLayout:
    """Exact header, positions of every part, and size. Tensors with known data must come first."""
    table, offset, places = b"", 0, []
    for tensor in tensors:
        dimensions = tensor.shape[::-1]
        table += _text(tensor.name) + struct.pack(f"<I{len(dimensions)}Q", len(dimensions), *dimensions)
        table += struct.pack("<IQ", tensor.kind.number, offset)
        places.append(offset)
        offset = _aligned(offset + tensor.nbytes)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata)) + encode_metadata(metadata) + table
    start = _aligned(len(head))
    header = head + bytes(start - len(head))
    offsets: dict[str, tuple[int, int]] = {}
    for tensor, place in zip(tensors, places, strict=True):
        if tensor.data is not None:
            assert len(tensor.data) == tensor.nbytes
            header += bytes(start + place - len(header)) + tensor.data
        position = start + place
        for name, size in tensor.parts:
            offsets[name] = (position, position + size)
            position += size
        assert tensor.data is not None or position == start + place + tensor.nbytes
    return FileLayout(file, header, offsets, start + offset)


def _aligned(position: int) -> int:
    return math.ceil(position / ALIGNMENT) * ALIGNMENT
