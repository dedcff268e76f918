"""Naming work by its content, so that work that was done is not done again (`Bitwright-Cache: hit`).

A model's bytes are never read here. A hub model is named by its commit; a model below a root by names, sizes and
modification times of its files. What cannot be pinned that way (a branch, a root of another host) is done anew.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import bitwright
from bitwright.core.canonical import digest_json
from bitwright.core.refs import FileRef, HubRef, parse_ref
from bitwright.core.requests import JobRequest
from bitwright.settings import Settings

#: Kinds whose result follows from the request alone and leaves nothing beside the job.
PURE = ("inspect", "sensitivity", "plan", "evaluate")
#: Larger or deeper model folders are not looked through for the sake of a cache.
ENTRIES, DEPTH = 4096, 4
_COMMIT = re.compile(r"[0-9a-f]{40}")


def work_digest(request: JobRequest, settings: Settings) -> str | None:
    """The name of this work; None when it has none."""
    leaves_files = getattr(request, "to", None) is not None
    if request.kind not in PURE or leaves_files or getattr(request, "checkpoint", None) is not None:
        return None
    model = _identity(request.model, settings)
    if model is None:
        return None
    members = request.model_dump(mode="json", exclude={"threads"})
    return digest_json({"version": bitwright.__version__, "model": model, "request": members})


def _identity(reference: str, settings: Settings) -> object | None:
    ref = parse_ref(reference, allow_path=False)
    if isinstance(ref, HubRef):
        return str(ref) if ref.revision is not None and _COMMIT.fullmatch(ref.revision) else None
    if not isinstance(ref, FileRef) or ref.root not in settings.model_roots:
        return None
    found: list[tuple[str, int, int]] = []
    folder = settings.model_roots[ref.root].joinpath(*ref.relative)
    try:
        complete = folder.is_dir() and _look(folder, "", found, DEPTH)
    except OSError:
        return None
    return [str(ref), str(folder), sorted(found)] if complete and found else None


def _look(folder: Path, prefix: str, found: list[tuple[str, int, int]], depth: int) -> bool:
    """Collect (name, size, time in ns) of every file, links followed; whether that was all of them."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if len(found) >= ENTRIES:
                return False
            if entry.is_dir():
                if depth == 0 or not _look(Path(entry.path), f"{prefix}{entry.name}/", found, depth - 1):
                    return False
                continue
            status = entry.stat()
            found.append((prefix + entry.name, status.st_size, status.st_mtime_ns))
    return True
