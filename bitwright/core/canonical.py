"""Canonical JSON and content digests: the same value gives the same bytes, and so the same name, everywhere."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from bitwright.core.errors import BitwrightError, DiskFull, InvalidInput, OutOfResources


def canonical_json(value: Any) -> bytes:
    """UTF-8 JSON with sorted keys, no spaces, no NaN; floats in Python's shortest round-trip form (as RFC 8785)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest_bytes(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def digest_json(value: Any) -> str:
    return digest_bytes(canonical_json(value))


def digest_file(path: Path) -> str:
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


#: What a full disk, a used-up quota and a limit on the size of files say.
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
#: What a failing disk or a machine at its limits says; every other refusal is about the place that was named.
_NO_MEANS = frozenset({errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE})


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Write beside `path` and rename on success: the final name holds the whole content or does not exist.

    Raises DiskFull, or InvalidInput when the place cannot be written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name[:100]}.", suffix=".tmp", dir=path.parent)
    except OSError as error:
        raise write_error(path, error) from error
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise write_error(path, error) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_error(path: Path, error: OSError) -> BitwrightError:
    """The typed error of a write that the system refused: DiskFull, OutOfResources, else InvalidInput."""
    words = f"cannot write {path.name[:120]}: {error.strerror or error}"
    if error.errno in FULL | _NO_MEANS:
        kind = DiskFull if error.errno in FULL else OutOfResources
        return kind(words, hint="free disk space or choose another output folder, then run the same command again")
    return InvalidInput(
        words, expected="a place where a file of that name can be written", got=str(path)[:300],
        hint="choose another output file or folder, or give yourself the right to write there",
    )  # fmt: skip


def write_json(path: Path, value: Any) -> None:
    with atomic_write(path) as file:
        file.write(canonical_json(value) + b"\n")
