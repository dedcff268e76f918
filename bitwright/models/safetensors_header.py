"""Reader of safetensors headers: own, bounded, and as strict as the specification.

File: 8 bytes little-endian length n, n bytes of JSON, then the data. Every rule below is one that real readers have
broken (research/06 C3): the length is checked before anything is allocated, sizes are Python integers (no wrap), keys
stand once, and the tensors' offsets are contiguous, do not overlap and cover the file exactly.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from bitwright.core.errors import InvalidModel
from bitwright.core.inventory import DTYPE_BYTES
from bitwright.models.limits import DEFAULT_LIMITS, Limits
from bitwright.models.strict_json import parse_object

LENGTH_BYTES = 8
_MEMBERS = frozenset({"dtype", "shape", "data_offsets"})
_HINT = "the file is damaged, cut short or not safetensors: download or export it again"


@dataclass(frozen=True)
class TensorInfo:
    """One stored tensor: safetensors dtype name, shape, and its bytes [start, end) from the file's beginning."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    start: int
    end: int

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.end - self.start

    @property
    def path_name(self) -> str:
        return self.file.name


@dataclass(frozen=True)
class Header:
    """`size`: bytes before the data (length field, JSON and its padding)."""

    size: int
    metadata: Mapping[str, str]
    tensors: tuple[TensorInfo, ...]


def read_header(file: BinaryIO, path: Path, file_bytes: int, limits: Limits = DEFAULT_LIMITS) -> Header:
    """Read and check the header of an open safetensors file of `file_bytes` bytes. Raises InvalidModel."""
    prefix = file.read(LENGTH_BYTES)
    if len(prefix) < LENGTH_BYTES:
        raise _broken(path, "is too short", "at least 8 bytes", f"{len(prefix)} bytes")
    length = int.from_bytes(prefix, "little")
    room = file_bytes - LENGTH_BYTES
    if length > min(limits.header_bytes, room):
        raise _broken(
            path, "has a header that cannot be", f"at most {min(limits.header_bytes, room)} bytes", f"{length} bytes"
        )
    data = file.read(length)
    if len(data) < length:
        raise _broken(path, "ends inside its header", f"{length} bytes", f"{len(data)} bytes")
    return parse_header(data, path, room - length, limits)


def parse_header(data: bytes, path: Path, data_bytes: int, limits: Limits = DEFAULT_LIMITS) -> Header:
    """Check the JSON of a header against a file that holds `data_bytes` bytes after it. Raises InvalidModel."""
    if not data.startswith(b"{"):
        raise _broken(path, "has no header", "a JSON object that begins with '{'", repr(data[:16]))
    entries = parse_object(data, what=f"the header of {path.name}", containers=limits.tensors + 2)
    metadata = _metadata(entries.pop("__metadata__", {}), path)
    if len(entries) > limits.tensors:
        raise _broken(path, "has too many tensors", f"at most {limits.tensors}", str(len(entries)))
    base = LENGTH_BYTES + len(data)
    tensors = tuple(_tensor(name, entry, path, base, limits) for name, entry in entries.items())
    _check_cover(tensors, path, base, base + data_bytes)
    return Header(base, metadata, tensors)


def _broken(path: Path, what: str, expected: str, got: str) -> InvalidModel:
    return InvalidModel(f"{path.name} {what}", expected=expected, got=got[:200], hint=_HINT)


def _metadata(value: Any, path: Path) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise _broken(path, "has bad metadata", "an object of texts", repr(value)[:80])
    return value


def check_name(name: str, path: Path, limits: Limits) -> None:
    """Raises InvalidModel for a tensor name that is empty, too long or holds characters that do not print."""
    if not name or not name.isprintable() or len(name) > limits.name_bytes or len(name.encode()) > limits.name_bytes:
        raise _broken(
            path, "has a tensor with a bad name", f"1 to {limits.name_bytes} bytes of printable text", ascii(name[:80])
        )


def _sizes(value: Any, limit: int) -> bool:
    return isinstance(value, list) and all(type(v) is int and 0 <= v <= limit for v in value)


def _tensor(name: str, entry: Any, path: Path, base: int, limits: Limits) -> TensorInfo:
    check_name(name, path, limits)
    where = f"describes tensor {name[:120]!r} wrongly"
    if not isinstance(entry, dict) or entry.keys() != _MEMBERS:
        raise _broken(path, where, "dtype, shape and data_offsets", repr(entry)[:80])
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        raise _broken(path, where, f"a dtype of {', '.join(DTYPE_BYTES)}", repr(dtype)[:80])
    if not _sizes(shape, limits.dimension) or len(shape) > limits.rank:
        raise _broken(path, where, f"a shape of at most {limits.rank} non-negative integers", repr(shape)[:80])
    if not _sizes(offsets, 1 << 63) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _broken(path, where, "two offsets, begin <= end", repr(offsets)[:80])
    needed = math.prod(shape) * DTYPE_BYTES[dtype]
    if offsets[1] - offsets[0] != needed:
        raise _broken(path, where, f"{needed} bytes for {dtype} {shape}", f"{offsets[1] - offsets[0]} bytes")
    return TensorInfo(name, dtype, tuple(shape), path, base + offsets[0], base + offsets[1])


def _check_cover(tensors: Iterable[TensorInfo], path: Path, start: int, end: int) -> None:
    position = start
    for tensor in sorted(tensors, key=lambda t: (t.start, t.end)):
        if tensor.start != position:
            kind = "overlaps the one before it" if tensor.start < position else "leaves a gap before it"
            raise _broken(
                path,
                f"has a tensor, {tensor.name[:120]!r}, that {kind}",
                f"offset {position - start}",
                str(tensor.start - start),
            )
        position = tensor.end
    if position != end:
        kind = "is cut short" if position > end else "has bytes that belong to no tensor"
        raise _broken(path, kind, f"{position - start} bytes of data", f"{end - start} bytes")
