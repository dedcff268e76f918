"""Models that this server can be asked about: folders with a config below its roots. Names alone; nothing is opened."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bitwright.core.errors import InvalidReference
from bitwright.core.refs import parse_ref

#: How deep and how many: a root may hold far more than models.
MAX_DEPTH, MAX_MODELS, MAX_FOLDERS = 4, 500, 20_000
CONFIG = "config.json"


def models_document(roots: Mapping[str, Path]) -> dict[str, Any]:
    """{models: [{ref, root, bytes}], whole}; whole is false where the search stopped early."""
    budget = [MAX_FOLDERS]
    found: list[dict[str, Any]] = []
    for root, folder in sorted(roots.items()):
        for relative, size in _below(folder, (), budget):
            ref = f"file:{root}/{'/'.join(relative)}"
            if len(found) < MAX_MODELS and _speakable(ref):
                found.append({"ref": ref, "root": root, "bytes": size})
    return {"models": found, "whole": budget[0] > 0 and len(found) < MAX_MODELS}


def _speakable(ref: str) -> bool:
    """Folders whose names no reference can spell are left out."""
    try:
        parse_ref(ref, allow_path=False)
    except InvalidReference:
        return False
    return True


def _below(folder: Path, relative: tuple[str, ...], budget: list[int]) -> Iterator[tuple[tuple[str, ...], int]]:
    """(path below the root, bytes of its weight files) of every model folder; links are not followed."""
    budget[0] -= 1
    if budget[0] <= 0:
        return
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:  # a root that is not mounted, a folder that may not be read: no models there
        return
    if relative and any(entry.name == CONFIG and entry.is_file() for entry in entries):
        weights = [entry for entry in entries if entry.name.endswith((".safetensors", ".gguf")) and entry.is_file()]
        yield relative, sum(entry.stat().st_size for entry in weights)
        return
    if len(relative) < MAX_DEPTH:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
                yield from _below(Path(entry.path), (*relative, entry.name), budget)
