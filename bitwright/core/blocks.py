"""Long arrays stretch by stretch: exact sums, and files in memory whose pages are given back once read."""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Rows looked at together: a block of a table stays in the processor's cache.
BLOCK_ROWS = 1 << 16


def row_blocks(n: int) -> list[slice]:
    """Stretches of BLOCK_ROWS rows."""
    return [slice(begin, min(n, begin + BLOCK_ROWS)) for begin in range(0, n, BLOCK_ROWS)]


def blocks(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """The array in stretches of rows that stay in the processor's cache; pages of a mapped file are given back."""
    for begin in range(0, len(array), BLOCK_ROWS):
        part = array[begin : begin + BLOCK_ROWS]
        yield part
        release(part)


def release(part: NDArray[Any]) -> None:
    """Give back the pages of a stretch of a memory-mapped file (they stay in the page cache)."""
    file = mapping(part)
    if file is None or not part.flags.c_contiguous:
        return
    begin = part.ctypes.data - np.frombuffer(file, np.uint8).ctypes.data
    first, last = -(-begin // mmap.PAGESIZE) * mmap.PAGESIZE, begin + part.nbytes
    if last - first >= mmap.PAGESIZE:
        file.madvise(mmap.MADV_DONTNEED, first, last - first)


def mapping(array: NDArray[Any]) -> mmap.mmap | None:
    """The read-only memory map that the array lies in, if it lies in one."""
    base: Any = array
    while isinstance(base, np.ndarray | memoryview):
        base = base.base if isinstance(base, np.ndarray) else base.obj
    return base if isinstance(base, mmap.mmap) and not array.flags.writeable else None


def exact_sum(values: NDArray[Any]) -> float:
    """Exactly rounded for up to a million terms (math.fsum), extended precision with pairwise blocks beyond."""
    if values.size <= 1_000_000:
        return math.fsum(values.ravel().tolist())
    blocks = [values.ravel()[i : i + 65536].astype(np.longdouble).sum() for i in range(0, values.size, 65536)]
    return float(np.sum(np.array(blocks, np.longdouble)))
