"""Content digests of models: they depend on what the files hold, never on where they lie.

A file's digest is remembered under a cache folder by path, inode, size and time of change, so that a model of many
gigabytes is hashed once. The memory is only a speed-up: it may be deleted, and a folder that takes no note is no error.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path

from bitwright.core.canonical import canonical_json, digest_json
from bitwright.core.errors import BitwrightError
from bitwright.models.files import open_regular, resolve

#: A file changed this recently may change again within the clock's resolution: its digest is not remembered.
SETTLED_SECONDS = 2.0


def cache_folder() -> Path:
    """BITWRIGHT_CACHE_DIR, else XDG_CACHE_HOME/bitwright, else ~/.cache/bitwright."""
    named = os.environ.get("BITWRIGHT_CACHE_DIR")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bitwright"


def file_digest(path: Path, *, beneath: Path | None = None, memory: Path | None = None) -> str:
    """`sha256:` digest of a file's content, remembered under `memory` (default: the cache folder)."""
    with open_regular(path, beneath) as file:
        before = os.fstat(file.fileno())
        key = [str(resolve(path, beneath)), before.st_ino, before.st_size, before.st_mtime_ns]
        note = (memory or cache_folder() / "digests") / f"{hashlib.sha256(canonical_json(key)).hexdigest()}.json"
        known = _recall(note, key)
        if known is not None:
            return known
        digest = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
        after = os.fstat(file.fileno())
    settled = time.time() - after.st_mtime > SETTLED_SECONDS
    if settled and (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns):
        _remember(note, {"key": key, "digest": digest})
    return digest


def _recall(note: Path, key: list[object]) -> str | None:
    try:
        known = json.loads(note.read_bytes())
        digest = known["digest"]
        fits = known["key"] == key and isinstance(digest, str) and digest.startswith("sha256:")
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return digest if fits else None


def _remember(note: Path, value: dict[str, object]) -> None:
    """Best effort, without fsync: losing a note costs one more hash."""
    with contextlib.suppress(OSError, BitwrightError):
        note.parent.mkdir(parents=True, exist_ok=True)
        temporary = note.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_bytes(canonical_json(value))
        temporary.replace(note)


def files_digest(
    config: Path, files: Iterable[Path], *, beneath: Path | None = None, memory: Path | None = None
) -> str:
    """Digest of a model: its config and the set of its weight files, whatever their names and order."""
    weights = sorted(file_digest(path, beneath=beneath, memory=memory) for path in files)
    return digest_json({"config": file_digest(config, beneath=beneath, memory=memory), "weights": weights})
