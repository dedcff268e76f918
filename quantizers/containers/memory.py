"""Large arrays without page faults: while a checkpoint is written, freed memory stays with the process.

glibc gives every large array fresh pages from the system and returns them at once; touching a fresh page costs more
than packing what is put in it (19,000 faults for 256 MiB of weights were two thirds of the CPU time). Elsewhere than on
glibc nothing is changed.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

#: mallopt(3): parameters, and where glibc's own sliding of them ends (DEFAULT_MMAP_THRESHOLD_MAX, and twice that).
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_USUAL_MMAP, _USUAL_TRIM = 32 << 20, 64 << 20
_LARGE = 1 << 30


@contextmanager
def kept_memory() -> Iterator[None]:
    """Within the block arrays up to 1 GiB reuse freed memory; at its end that memory goes back to the system."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is None or not hasattr(libc, "mallopt") or not hasattr(libc, "malloc_trim"):
        yield
        return
    libc.mallopt(_MMAP_THRESHOLD, _LARGE)
    libc.mallopt(_TRIM_THRESHOLD, _LARGE)
    try:
        yield
    finally:
        libc.mallopt(_MMAP_THRESHOLD, _USUAL_MMAP)
        libc.mallopt(_TRIM_THRESHOLD, _USUAL_TRIM)
        libc.malloc_trim(0)
