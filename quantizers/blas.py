"""Memory that BLAS takes for itself, asked for while it can still be refused.

OpenBLAS sets a buffer aside when it is loaded and for every thread of its at the first call. Where the system has none
to give, scipy's copy of it asks for ever and numpy's ends the process (measured with RLIMIT_DATA; OpenBLAS,
driver/others/memory.c): neither can be caught. So it is loaded and called after a question that can fail.
"""

from __future__ import annotations

import mmap
import os
from functools import lru_cache

import numpy as np

from bitwright.core.errors import OutOfResources

#: Bytes a thread that numpy's and scipy's copies take together (32 MiB each, and pages around them).
BUFFERS = 72 << 20
#: Columns of a matrix whose products are shared among threads.
_LARGE = 256


@lru_cache(maxsize=1)
def ready() -> None:
    """Both copies have what they need, from now on. Raises OutOfResources."""
    _ask()
    from scipy.linalg.lapack import dtrtri

    matrix = np.asfortranarray(np.eye(_LARGE))
    dtrtri(matrix @ matrix)


def _ask() -> None:
    wanted = BUFFERS * _threads()
    try:
        mmap.mmap(-1, wanted, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    except (OSError, ValueError) as error:
        raise OutOfResources(
            "memory ran out before linear algebra could begin",
            expected=f"{wanted >> 20} MiB for {_threads()} threads",
            hint="allow the process more memory, or fewer threads (OMP_NUM_THREADS=1)",
        ) from error


def _threads() -> int:
    """Threads of OpenBLAS: what it is told, else the processors that this process may use."""
    for name in ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS"):
        told = os.environ.get(name, "")
        if told.isdecimal() and int(told):
            return int(told)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
