"""Reader of GGUF headers: own, bounded, strict. Versions 2 and 3, little-endian (ggml/docs/gguf.md).

File: magic, version, tensor count, metadata count; metadata (key, type, value); tensor table (name, dimensions, type,
offset); padding to the alignment; data. Every count and length is checked against what is left of the file before
anything is made of it, offsets must be aligned, inside the file and free of overlaps.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from bitwright.core.errors import InvalidModel
from bitwright.core.ggml import GGML_BY_NUMBER, GgmlType
from bitwright.models.files import open_regular
from bitwright.models.limits import DEFAULT_LIMITS, Limits

MAGIC = b"GGUF"
ALIGNMENT = 32
#: struct letter and size of plain value types, by number; 8 is a string, 9 an array.
_PLAIN = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_NESTED = 2
_KEYS = 100_000
_HINT = "the file is damaged, cut short or not GGUF: download or convert it again"


@dataclass(frozen=True)
class GgufTensor:
    """One tensor: shape innermost last, as Hugging Face has it; its bytes [start, end) from the file's beginning."""

    name: str
    kind: GgmlType
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class GgufHeader:
    """metadata: values by key; strings as text, arrays as lists. data_start: where tensor data begins."""

    path: Path
    version: int
    metadata: Mapping[str, Any]
    tensors: Mapping[str, GgufTensor]
    data_start: int
    file_bytes: int

    @property
    def architecture(self) -> str:
        return str(self.metadata.get("general.architecture", ""))


@dataclass
class _Reader:
    """Reads forward; every length is compared with what is left of the file, and the header with its limit."""

    file: BinaryIO
    path: Path
    left: int
    budget: int
    used: int = field(default=0)

    def take(self, count: int) -> bytes:
        if count < 0 or count > min(self.left, self.budget - self.used):
            room = min(self.left, self.budget - self.used)
            raise broken(self.path, "claims more than it holds", f"at most {room} bytes here", f"{count} bytes")
        data = self.file.read(count)
        if len(data) != count:
            raise broken(self.path, "ends early", f"{count} bytes", f"{len(data)} bytes")
        self.left -= count
        self.used += count
        return data

    def number(self, letter: str) -> Any:
        return struct.unpack("<" + letter, self.take(struct.calcsize("<" + letter)))[0]

    def text(self, limit: int) -> str:
        length = self.number("Q")
        if length > limit:
            raise broken(self.path, "holds a text that is too long", f"at most {limit} bytes", f"{length} bytes")
        try:
            return self.take(length).decode("utf-8")
        except UnicodeDecodeError as error:
            raise broken(self.path, "holds a text that is no UTF-8", "UTF-8", str(error)[:80]) from error


def broken(path: Path, what: str, expected: str, got: str) -> InvalidModel:
    return InvalidModel(f"{path.name} {what}", expected=expected, got=got, hint=_HINT)


def read_gguf(path: Path, *, beneath: Path | None = None, limits: Limits = DEFAULT_LIMITS) -> GgufHeader:
    """Header of a GGUF file. Raises InvalidModel."""
    with open_regular(path, beneath) as file:
        size = os.fstat(file.fileno()).st_size
        reader = _Reader(file, path, size, max(limits.header_bytes, limits.index_bytes))
        if reader.left < 24 or reader.take(4) != MAGIC:
            raise broken(path, "is no GGUF file", "the letters GGUF at its beginning", "something else")
        version = reader.number("I")
        if version not in (2, 3):
            raise broken(path, "has another version", "GGUF version 2 or 3, little-endian", str(version))
        tensors, keys = reader.number("Q"), reader.number("Q")
        if tensors > limits.tensors or keys > _KEYS:
            raise broken(
                path,
                "claims too much",
                f"at most {limits.tensors} tensors and {_KEYS} keys",
                f"{tensors} tensors and {keys} keys",
            )
        metadata = _metadata(reader, keys, limits)
        alignment = metadata.get("general.alignment", ALIGNMENT)
        if type(alignment) is not int or not 1 <= alignment <= 1 << 16 or alignment & (alignment - 1):
            raise broken(path, "has a strange alignment", "a power of two up to 65536", ascii(alignment)[:40])
        table = [_entry(reader, limits) for _ in range(tensors)]
        start = -(-reader.used // alignment) * alignment
    found = _place(path, table, start, size, alignment)
    return GgufHeader(path, version, metadata, found, start, size)


def _metadata(reader: _Reader, keys: int, limits: Limits) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for _ in range(keys):
        key = reader.text(limits.name_bytes)
        if key in found:
            raise broken(reader.path, "names a key twice", "each once", ascii(key)[:80])
        found[key] = _value(reader, reader.number("I"), limits, 0)
    return found


def _value(reader: _Reader, kind: int, limits: Limits, depth: int) -> Any:
    if kind in _PLAIN:
        if kind == 7:
            byte = reader.number("B")
            if byte > 1:
                raise broken(reader.path, "holds a truth value that is none", "0 or 1", str(byte))
            return bool(byte)
        return reader.number(_PLAIN[kind])
    if kind == _STRING:
        return reader.text(limits.config_bytes)
    if kind != _ARRAY or depth >= _NESTED:
        raise broken(reader.path, "holds a value of unknown type", "types 0 to 12, arrays at most two deep", str(kind))
    inner, count = reader.number("I"), reader.number("Q")
    # Every element takes at least a byte (a text eight): more than the file has left is a lie.
    least = struct.calcsize("<" + _PLAIN[inner]) if inner in _PLAIN else 8
    if count > limits.tensors or count * least > min(reader.left, reader.budget - reader.used):
        raise broken(reader.path, "claims a longer array than it holds", f"{reader.left} bytes left", f"{count} values")
    if inner in _PLAIN and inner != 7:
        letter = _PLAIN[inner]
        return list(struct.unpack(f"<{count}{letter}", reader.take(count * least)))
    return [_value(reader, inner, limits, depth + 1) for _ in range(count)]


def _entry(reader: _Reader, limits: Limits) -> tuple[str, tuple[int, ...], GgmlType, int]:
    name = reader.text(limits.name_bytes)
    rank = reader.number("I")
    if not name or not name.isprintable() or not 1 <= rank <= 4:
        raise broken(
            reader.path, "describes a strange tensor", "a name and 1 to 4 dimensions", f"{ascii(name)[:80]}, {rank}"
        )
    shape = tuple(reader.number("Q") for _ in range(rank))[::-1]
    if any(not 0 < size < limits.dimension for size in shape):
        raise broken(reader.path, "describes a strange tensor", "positive dimensions", f"{ascii(name)[:80]} {shape}")
    number = reader.number("I")
    kind = GGML_BY_NUMBER.get(number)
    if kind is None or shape[-1] % kind.block:
        raise broken(
            reader.path,
            f"stores {ascii(name)[:80]} in a way that cannot be",
            "a known ggml type whose block divides the rows",
            f"type {number}, shape {shape}",
        )
    return name, shape, kind, reader.number("Q")


def _place(
    path: Path, table: list[tuple[str, tuple[int, ...], GgmlType, int]], start: int, size: int, alignment: int
) -> dict[str, GgufTensor]:
    """Tensors by name; none twice, none outside, none over another."""
    found: dict[str, GgufTensor] = {}
    for name, shape, kind, offset in table:
        end = start + offset + kind.nbytes(shape)
        if name in found or offset % alignment or end > size:
            raise broken(
                path,
                f"places {ascii(name)[:80]} wrongly",
                f"one aligned place within {size} bytes",
                f"bytes {start + offset} to {end}",
            )
        found[name] = GgufTensor(name, kind, shape, start + offset, end)
    position = start
    for tensor in sorted(found.values(), key=lambda t: (t.start, t.end)):
        if tensor.start < position:
            raise broken(
                path,
                "stores two tensors in one place",
                f"{ascii(tensor.name)[:80]} from byte {position}",
                str(tensor.start),
            )
        position = tensor.end
    return found
