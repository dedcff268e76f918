"""The weight files of a checkpoint while it is written: tensors go to their known places, from several threads."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.core.errors import VerificationFailed
from quantizers.containers.tensorfile import FileLayout

#: sync_file_range(2): start writing these pages to the disk, wait for none.
_WRITE = 2
#: Smaller tensors wait for the fsync at the end: they would break up what the disk takes in one piece.
_WORTHWHILE = 1 << 20


@lru_cache(maxsize=1)
def _start_writing() -> Callable[[int, int, int, int], int] | None:
    """The system's call that sends pages to the disk without waiting, where there is one."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is None or not hasattr(libc, "sync_file_range"):
        return None
    call: Callable[[int, int, int, int], int] = libc.sync_file_range
    call.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]  # type: ignore[attr-defined]
    return call


class OutputFiles:
    """Files that have their final sizes already. Used as a context manager; `place` may be called by any thread."""

    def __init__(self, folder: Path, files: Sequence[FileLayout]) -> None:
        self._folder, self._files = folder, files
        self._places = {name: (file.name, *span) for file in files for name, span in file.offsets.items()}
        self._handles: dict[str, int] = {}
        self._disk = ThreadPoolExecutor(1)  # a disk whose queue is full keeps this thread waiting, not those that work

    def __enter__(self) -> OutputFiles:
        self._handles = {file.name: os.open(self._folder / file.name, os.O_WRONLY) for file in self._files}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._disk.shutdown(cancel_futures=True)
        for handle in self._handles.values():
            os.close(handle)

    def place(self, name: str, array: NDArray[Any]) -> None:
        """Write a tensor. Raises VerificationFailed when it has another size than the header says."""
        data: Any = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        file, start, stop = self._places[name]
        if data.nbytes != stop - start:
            raise VerificationFailed(
                f"{name} has another size than predicted", expected=f"{stop - start} bytes", got=str(data.nbytes)
            )
        done = 0
        while done < data.nbytes:
            done += os.pwrite(self._handles[file], data[done:], start + done)
        start_writing = _start_writing()
        if start_writing is not None and data.nbytes >= _WORTHWHILE:
            # The disk works while the next tensors are made. What goes wrong here is kept for the fsync, which decides.
            self._disk.submit(start_writing, self._handles[file], start, data.nbytes, _WRITE)
