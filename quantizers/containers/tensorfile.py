"""safetensors files: exact header bytes before writing, and a reader that trusts nothing.

Format: 8 bytes little-endian header length, a JSON object name -> {dtype, shape, data_offsets}, the data without holes.
Data is ordered by element size, largest first, so that every tensor is aligned (torch needs that to map it).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.core.errors import InvalidModel
from bitwright.core.inventory import DTYPE_BYTES

#: numpy views by safetensors dtype; BF16 and F8 are given as the integers that hold their bits.
NUMPY = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|b1", "F8_E4M3": "|u1", "F8_E5M2": "|u1",
}  # fmt: skip
#: Headers above this are refused when read, as the safetensors library does.
MAX_HEADER_BYTES = 100_000_000


@dataclass(frozen=True)
class TensorSpec:
    """A tensor to be written: name, safetensors dtype, shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * DTYPE_BYTES[self.dtype]


@dataclass(frozen=True)
class FileLayout:
    """One safetensors file before it is written. offsets: absolute byte ranges in the file."""

    name: str
    header: bytes
    offsets: Mapping[str, tuple[int, int]]
    size: int


def lay_out(file: str, specs: Iterable[TensorSpec], metadata: Mapping[str, str]) -> FileLayout:
    """Exact header and positions of a file holding these tensors."""
    ordered = sorted(specs, key=lambda spec: -DTYPE_BYTES[spec.dtype])
    table: dict[str, Any] = {"__metadata__": dict(metadata)}
    relative: dict[str, tuple[int, int]] = {}
    position = 0
    for spec in ordered:
        end = position + spec.nbytes
        table[spec.name] = {"dtype": spec.dtype, "shape": list(spec.shape), "data_offsets": [position, end]}
        relative[spec.name] = (position, end)
        position = end
    text = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    header = len(text).to_bytes(8, "little") + text
    offsets = {name: (start + len(header), stop + len(header)) for name, (start, stop) in relative.items()}
    return FileLayout(file, header, offsets, len(header) + position)


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies. start, stop: absolute byte range in the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    path: Path
    start: int
    stop: int

    def read(self) -> NDArray[Any]:
        """The numbers as stored (BF16 and F8 as integers holding their bits)."""
        with self.path.open("rb") as file:
            file.seek(self.start)
            data = file.read(self.stop - self.start)
        if len(data) != self.stop - self.start:
            raise _bad(self.path, f"{self.name} ends at byte {self.stop}", "the file is shorter")
        return np.frombuffer(data, dtype=NUMPY[self.dtype]).reshape(self.shape)


def _bad(path: Path, expected: str, got: str) -> InvalidModel:
    return InvalidModel(f"{path.name} is not a sound safetensors file", expected=expected, got=got)


def read_header(path: Path) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """Tensors and metadata of a file. Raises InvalidModel for anything that does not add up."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(MAX_HEADER_BYTES, size - 8):
            raise _bad(path, f"a header of at most {min(MAX_HEADER_BYTES, size - 8)} bytes", f"{length} bytes")
        text = file.read(length)
    try:
        table = json.loads(text)
        metadata = {str(k): str(v) for k, v in dict(table.pop("__metadata__", {})).items()}
        found = {name: _entry(path, name, entry, 8 + length) for name, entry in table.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _bad(path, "a JSON header of name -> dtype, shape, data_offsets", str(error)[:120]) from error
    position = 8 + length
    for tensor in sorted(found.values(), key=lambda t: (t.start, t.stop)):
        if tensor.start != position:
            raise _bad(path, f"{tensor.name} at byte {position}", f"byte {tensor.start}")
        position = tensor.stop
    if position != size:
        raise _bad(path, f"{position} bytes", f"{size} bytes")
    return found, metadata


def _entry(path: Path, name: str, entry: Mapping[str, Any], base: int) -> StoredTensor:
    shape = tuple(int(d) for d in entry["shape"])
    start, stop = (int(x) for x in entry["data_offsets"])
    dtype = str(entry["dtype"])
    if any(d < 0 for d in shape) or stop - start != math.prod(shape) * DTYPE_BYTES[dtype]:
        raise ValueError(f"{name}: {stop - start} bytes for {dtype} {list(shape)}")
    return StoredTensor(name, dtype, shape, path, base + start, base + stop)
