"""Half-done sums in a file beside the blobs: a job that was killed inside a step goes on where it was last kept."""

from __future__ import annotations

import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.core.canonical import atomic_write
from sensitivity.partial import State

#: Seconds between two states: what a kill can cost, against the writing.
EVERY = 5.0


class PartialFile:
    """The state of one question. Two processes at the same question may both write: each state is whole and right."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last = time.monotonic()

    def load(self) -> State:
        """The last state kept; empty when there is none, or when a failing disk left it unreadable."""
        try:
            with self._path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            self._path.unlink(missing_ok=True)
            return {}

    def save(self, state: Callable[[], State]) -> None:
        """Raises OutOfResources when the disk is full."""
        if time.monotonic() - self._last < EVERY:
            return
        arrays: dict[str, NDArray[Any]] = dict(state())
        with atomic_write(self._path) as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        self._last = time.monotonic()


@contextmanager
def kept_in(path: Path) -> Iterator[PartialFile]:
    """A state that is dropped when the block ends well, and stays for the next run when it does not."""
    yield PartialFile(path)
    path.unlink(missing_ok=True)
