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
#: Numbers looked at together, several times: they stay in the cache that is a core's own.
CACHED = 1 << 16
_VIEWS = (np.ndarray, memoryview)
#: Whether `longdouble` has 64 bits (x87), and what a pairwise sum of a million of them errs by, as a share of the
#: summed magnitudes: a term passes at most 26 additions in its block of 128 and 14 above (`numpy.sum`, notes; Higham
#: 2002, section 4.2), each of which rounds by 2^-64; the rest allows for rounded magnitudes.
EXTENDED, PAIRWISE = bool(np.finfo(np.longdouble).eps == 2.0**-63), 48 * 2.0**-64
#: Up to so many terms `math.fsum` takes less time; beyond magnitudes of LARGEST it says what overflows.
FEW, LARGEST = 128, 1e300


def row_blocks(n: int) -> list[slice]:
    """Stretches of BLOCK_ROWS rows."""
    if 0 < n <= BLOCK_ROWS:
        return [slice(0, n)]
    return [slice(begin, min(n, begin + BLOCK_ROWS)) for begin in range(0, n, BLOCK_ROWS)]


def blocks(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """The array in stretches of rows that stay in the processor's cache; pages of a mapped file are given back."""
    for begin in range(0, len(array), BLOCK_ROWS):
        part = array[begin : begin + BLOCK_ROWS]
        yield part
        release(part)


def release(part: NDArray[Any]) -> None:
    """Give back the pages of a stretch of a memory-mapped file (they stay in the page cache)."""
    if len(part) < BLOCK_ROWS:  # a last stretch, or a table that is none: nothing worth asking for
        return
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
    while isinstance(base, _VIEWS):
        base = base.base if isinstance(base, np.ndarray) else base.obj
    return base if isinstance(base, mmap.mmap) and not array.flags.writeable else None


def exact_sum(values: NDArray[Any], *, signed: bool = True) -> float:
    """Exactly rounded for up to a million terms, extended precision with pairwise blocks beyond.

    signed: False where no term is negative, which takes half the time.
    """
    return exact_sums(values, signed=signed)[0]


def exact_sums(values: NDArray[Any], *, signed: bool = True) -> tuple[float, float]:
    """`exact_sum`, and the sum of the magnitudes (rounded as it comes)."""
    terms = values.ravel()
    if terms.size > 1_000_000:
        wide = np.array([part.astype(np.longdouble).sum() for part in _pieces(terms)])
        size = np.array([np.abs(part).astype(np.longdouble).sum() for part in _pieces(terms)]) if signed else wide
        return float(np.sum(wide)), float(np.sum(size))
    if EXTENDED and terms.size > FEW:
        wide = terms.astype(np.longdouble)
        total = np.add.reduce(wide)
        size = np.add.reduce(np.abs(wide)) if signed else total
        # Where both ends of what it may err by round to one number, the exact sum does too.
        if size < LARGEST:
            error = size * PAIRWISE
            if (rounded := float(total - error)) == float(total + error):
                return rounded, float(size)
    exact = math.fsum(terms.tolist())
    return exact, float(np.abs(terms).sum(dtype=np.float64)) if signed else exact


def _pieces(terms: NDArray[Any]) -> Iterator[NDArray[Any]]:
    return (terms[i : i + BLOCK_ROWS] for i in range(0, terms.size, BLOCK_ROWS))
