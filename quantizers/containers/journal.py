"""The journal of a half-written checkpoint: what is done, so that a killed run can go on where it stood."""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from bitwright.core.errors import Temporary

_NAME = ".journal"


@dataclass
class Journal:
    """done: group index -> checksum of what was written for it."""

    file: IO[str]
    path: Path
    done: dict[int, int] = field(default_factory=dict)

    def add(self, index: int, mark: int) -> None:
        """Record a group after its bytes were handed to the operating system."""
        self.done[index] = mark
        self.file.write(json.dumps([index, mark]) + "\n")
        self.file.flush()

    def remove(self) -> None:
        self.path.unlink()


@contextmanager
def open_journal(folder: Path, key: str) -> Iterator[Journal]:
    """The journal of `folder`, locked; a folder left by another request is emptied first.

    Raises Temporary when another process holds it.
    """
    folder.mkdir(exist_ok=True)
    path = folder / _NAME
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Temporary(
                "another process is writing this checkpoint", hint="wait for it to end, or choose another folder"
            ) from error
        file.seek(0)
        done = _parse(file.read().splitlines(), key)
        if done is None:
            _clear(folder)
            file.seek(0)
            file.truncate()
            file.write(json.dumps(key) + "\n")
            file.flush()
        yield Journal(file, path, done or {})


def _parse(lines: list[str], key: str) -> dict[int, int] | None:
    """Finished groups, or None when the journal is not of this request; a torn last line is dropped."""
    if not lines or lines[0] != json.dumps(key):
        return None
    done: dict[int, int] = {}
    for line in lines[1:]:
        try:
            index, mark = json.loads(line)
        except ValueError:
            break
        done[int(index)] = int(mark)
    return done


def _clear(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.name == _NAME:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
