"""Work on rows in several threads: the native kernels release the interpreter's lock."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache

#: Fewer elements than this a thread are not worth one.
_LEAST = 1 << 20
_here = threading.local()


@lru_cache(maxsize=1)
def threads() -> int:
    """OMP_NUM_THREADS where it is a number, else the processors this process may use."""
    named = os.environ.get("OMP_NUM_THREADS", "")
    if named.isdecimal() and int(named) > 0:
        return int(named)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def alone() -> Iterator[None]:
    """Within the block this thread shares its rows with no other: there are others with work of their own."""
    _here.alone = True
    try:
        yield
    finally:
        _here.alone = False


def over_rows(rows: int, columns: int, work: Callable[[int, int], int]) -> int:
    """Call work(start, stop) for spans that cover the rows; gives the first result that is not 0, in their order."""
    count = max(1, min(threads(), rows, rows * columns // _LEAST))
    if count == 1 or getattr(_here, "alone", False):
        return work(0, rows)
    edges = [rows * i // count for i in range(count + 1)]
    with ThreadPoolExecutor(count) as pool:
        found = list(pool.map(work, edges[:-1], edges[1:]))
    return next((status for status in found if status), 0)
