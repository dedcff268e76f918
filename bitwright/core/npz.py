"""`.npz` archives from anywhere: plain arrays only, nothing trusted."""

from __future__ import annotations

import io
import math
import mmap
import struct
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.core.errors import InvalidProblem

#: Uncompressed over compressed size beyond which an archive is treated as a bomb (research/06 C3): any archive, and one
#: that unpacks to more than LARGE bytes (float tables do not shrink by a hundred).
MAX_RATIO, LARGE_RATIO, LARGE = 1000, 100, 2**28
MAX_ARRAYS = 256
#: As numpy writes; other methods only widen what a hostile archive can reach.
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
#: Arrays from here on are mapped, not read.
MAP_BYTES = 1 << 26


def read_npz(source: Path | io.BytesIO, *, max_bytes: int = 2**40) -> dict[str, NDArray[Any]]:
    """Arrays of an `.npz`, refusing pickles, archive bombs and lying headers.

    Large members of a file that are stored without compression are not read but mapped into memory, read-only; their
    checksums are not looked at. The file must not be cut short while they are in use.
    """
    try:
        with zipfile.ZipFile(source) as archive:
            members = archive.infolist()
            size = sum(member.file_size for member in members)
            packed = max(1, sum(member.compress_size for member in members))
            ratio = LARGE_RATIO if size > LARGE else MAX_RATIO
            there = source.stat().st_size if isinstance(source, Path) else source.getbuffer().nbytes
            if packed > there or any(member.compress_type not in METHODS for member in members):
                raise InvalidProblem(
                    "the archive is not as numpy writes one: its arrays overlap, or how they are packed"
                )
            if len(members) > MAX_ARRAYS or size > max_bytes or size / packed > ratio:
                raise InvalidProblem(
                    "the archive is not plausible",
                    expected=f"at most {MAX_ARRAYS} arrays, {max_bytes} bytes, ratio {ratio}",
                    got=f"{len(members)} arrays, {size} bytes, ratio {size // packed}",
                )
            names = [member.filename.removesuffix(".npy") for member in members]
            if len(set(names)) != len(names):
                raise InvalidProblem("two arrays of the archive share a name")
            file = None if isinstance(source, io.BytesIO) else _mapped(source, members)
            return {name: _read_array(archive, m, file) for name, m in zip(names, members, strict=True)}
    # zipfile checks little of what a damaged directory says: offsets before the file, dates and names that are none.
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError, OverflowError) as error:
        raise InvalidProblem("the .npz archive is damaged", got=str(error)[:120]) from error


def _mapped(path: Path, members: list[zipfile.ZipInfo]) -> mmap.mmap | None:
    if not any(_is_long(member) for member in members):
        return None
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _is_long(member: zipfile.ZipInfo) -> bool:
    return member.compress_type == zipfile.ZIP_STORED and member.file_size >= MAP_BYTES and not member.flag_bits & 1


def _place(data: mmap.mmap, member: zipfile.ZipInfo) -> int:
    """Where a stored member's bytes begin: after its local header (APPNOTE 4.3.7), whose lengths may differ."""
    at = member.header_offset
    if data[at : at + 4] != b"PK\x03\x04":
        raise InvalidProblem(f"array '{member.filename}' has a damaged header", got="no local file header")
    name, extra = struct.unpack("<HH", data[at + 26 : at + 30])
    begin = at + 30 + int(name) + int(extra)
    if begin + member.file_size > len(data):
        raise InvalidProblem(f"array '{member.filename}' is cut short")
    return begin


def _read_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, whole: mmap.mmap | None) -> NDArray[Any]:
    """One array; its header is compared with the bytes that are there before anything is allocated."""
    with archive.open(member) as file:
        try:
            version = np.lib.format.read_magic(file)
            if version == (1, 0):
                shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
            elif version == (2, 0):
                shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
            else:
                raise InvalidProblem(f"array '{member.filename}' has an unknown .npy version", got=str(version))
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError, OverflowError) as error:
            raise InvalidProblem(f"array '{member.filename}' has a damaged header", got=str(error)[:120]) from error
        if dtype.hasobject:
            raise InvalidProblem(
                f"array '{member.filename}' holds Python objects (a pickle)", hint="store plain numbers"
            )
        count = math.prod(shape)
        if any(type(d) is not int or d < 0 for d in shape) or count * dtype.itemsize > member.file_size:
            raise InvalidProblem(
                f"array '{member.filename}' claims more data than it has",
                expected=f"at most {member.file_size} bytes", got=f"shape {shape} of {dtype}",
            )  # fmt: skip
        if whole is not None and _is_long(member):
            array = np.frombuffer(whole, dtype, count, _place(whole, member) + file.tell())
        else:
            data = file.read(count * dtype.itemsize)
            if len(data) != count * dtype.itemsize:
                raise InvalidProblem(f"array '{member.filename}' is cut short")
            array = np.frombuffer(data, dtype)
    if dtype.kind == "U" and array.view(dtype.byteorder + "u4").max(initial=0) > sys.maxunicode:
        raise InvalidProblem(f"array '{member.filename}' holds no unicode text")
    return array.reshape(shape[::-1]).T if fortran else array.reshape(shape)
