"""Content-addressed files: each step's output is a blob named by its digest; a step whose blob exists is skipped."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from bitwright.core.canonical import atomic_write, canonical_json, digest_bytes, write_error
from bitwright.core.errors import NotFound
from bitwright.core.plan import Plan

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class BlobStore:
    """Files and folders under `root/<kind>/<hex digest>`; a name that exists is complete (renamed when done)."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, kind: str, digest: str) -> Path:
        """Where a blob of that digest lies or would lie. Raises NotFound for a text that is no digest."""
        if not _DIGEST.fullmatch(digest):
            raise NotFound(f"this is not a {kind} digest", expected="sha256: and 64 hex digits", got=repr(digest)[:90])
        return self.root / kind / digest.removeprefix("sha256:")

    def put(self, kind: str, data: bytes) -> str:
        digest = digest_bytes(data)
        path = self.path(kind, digest)
        if not path.exists():
            with atomic_write(path) as file:
                file.write(data)
        return digest

    def put_json(self, kind: str, value: Any) -> str:
        return self.put(kind, canonical_json(value))

    def put_as(self, kind: str, digest: str, value: Plan) -> None:
        """Store a document under its own digest (a plan's digest names its choice, not its bytes); the first stays."""
        path = self.path(kind, digest)
        if not path.exists():
            with atomic_write(path) as file:
                file.write(canonical_json(value.to_json()))

    def get(self, kind: str, digest: str) -> bytes:
        path = self.path(kind, digest)
        if not path.is_file():
            raise NotFound(f"there is no {kind} of that digest", got=digest)
        return path.read_bytes()

    def memo(self, kind: str, key_digest: str, build: Callable[[Path], None]) -> Path:
        """The blob named by the digest of its *inputs*; `build(path)` makes it when it is not there yet.

        `build` writes a file or a folder at the path it is given; it is renamed into place when it returns.
        """
        path = self.path(kind, key_digest)
        if path.exists():
            return path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            holder = Path(tempfile.mkdtemp(prefix=".build.", dir=path.parent))
        except OSError as error:
            raise write_error(path, error) from error
        try:
            try:
                build(holder / "blob")
                _sync(holder / "blob")
            except OSError as error:
                raise write_error(path, error) from error
            try:
                (holder / "blob").rename(path)
            except OSError as error:
                if not path.exists():  # another process finished the same blob first: equal by construction
                    raise write_error(path, error) from error
        finally:
            shutil.rmtree(holder, ignore_errors=True)
        return path

    def remove(self, path: Path) -> None:
        """Remove a blob; its name goes first, so that a name that exists stays complete."""
        with suppress(FileNotFoundError):  # somebody else removed it
            holder = Path(tempfile.mkdtemp(prefix=".build.", dir=path.parent))
            path.rename(holder / "blob")
            shutil.rmtree(holder, ignore_errors=True)


def _sync(blob: Path) -> None:
    """Bytes reach the disk before the name does: after a power cut a name that exists is still complete."""
    for path in [blob] if blob.is_file() else [p for p in blob.rglob("*") if p.is_file()]:
        with path.open("rb") as file:
            os.fsync(file.fileno())
