"""Opening files of a model: regular files only, and beneath a folder when one is given."""

from __future__ import annotations

import os
import stat
from io import BufferedReader
from pathlib import Path

from bitwright.core.errors import InvalidModel, InvalidReference

#: O_NONBLOCK: a named pipe put in the place of a file must not hang the reader.
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def resolve(path: Path, beneath: Path | None) -> Path:
    """`path` without links; must lie beneath `beneath` where that is given. Raises InvalidModel, InvalidReference."""
    try:
        found = path.resolve(strict=True)
        inside = beneath is None or found.is_relative_to(beneath.resolve(strict=True))
    except FileNotFoundError as error:
        raise InvalidModel(
            f"there is no {path.name or 'such folder'}", expected="an existing path", got=_shown(path, beneath)
        ) from error
    except (OSError, RuntimeError, ValueError) as error:
        raise InvalidModel(
            f"{path.name} cannot be reached",
            expected="a readable path",
            got=getattr(error, "strerror", None) or "a bad path",
        ) from error
    if not inside:
        raise InvalidReference(
            f"{path.name} leads out of its folder",
            expected="files inside the configured root",
            got="a link to somewhere else",
            hint="copy the files into the root",
        )
    return found


def _shown(path: Path, beneath: Path | None) -> str:
    """The path for a message; below a root only the part that the caller named, never where the root lies."""
    return str(path.relative_to(beneath)) if beneath is not None and path.is_relative_to(beneath) else str(path)


def open_regular(path: Path, beneath: Path | None = None) -> BufferedReader:
    """Open a regular file for reading.

    Links are resolved first and the result must lie beneath `beneath`; then every part is opened without following
    links, so that a link swapped in between is refused. Raises InvalidModel or InvalidReference.
    """
    target = resolve(path, beneath)
    try:
        descriptor = _open_parts(target, beneath)
    except OSError as error:
        raise InvalidModel(
            f"{path.name} cannot be opened", expected="a readable file", got=error.strerror or str(error)
        ) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InvalidModel(f"{path.name} is not a regular file", expected="a file", got="a folder, device or pipe")
    return os.fdopen(descriptor, "rb")


def _open_parts(target: Path, beneath: Path | None) -> int:
    if beneath is None:
        return os.open(target, _FLAGS)
    root = beneath.resolve(strict=True)
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    *parents, name = target.relative_to(root).parts
    try:
        for part in parents:
            inner = os.open(part, _FLAGS | os.O_DIRECTORY, dir_fd=folder)
            os.close(folder)
            folder = inner
        return os.open(name, _FLAGS, dir_fd=folder)
    finally:
        os.close(folder)


def read_bounded(path: Path, limit: int, beneath: Path | None = None) -> bytes:
    """Whole content of a file of at most `limit` bytes. Raises InvalidModel."""
    with open_regular(path, beneath) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise InvalidModel(f"{path.name} is too large", expected=f"at most {limit} bytes", got=f"{size} bytes")
        return file.read(limit + 1)[:limit]


def names_in(folder: Path, limit: int) -> tuple[str, ...]:
    """Sorted names in a folder. Raises InvalidModel when there are more than `limit` or it cannot be read."""
    found: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                found.append(entry.name)
                if len(found) > limit:
                    raise InvalidModel(
                        "the folder holds too many files", expected=f"at most {limit}", got="more than that"
                    )
    except OSError as error:
        raise InvalidModel(
            "the folder cannot be read", expected="a readable folder", got=error.strerror or str(error)
        ) from error
    return tuple(sorted(found))
