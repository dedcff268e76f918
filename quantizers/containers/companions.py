"""The small files beside the weights (config, tokenizer, pooling modules, licence), copied unchanged."""

from __future__ import annotations

import shutil
from pathlib import Path

#: What a loader may need beside the weights. Code (`.py`) and pickles are never copied.
_SUFFIXES = frozenset({".json", ".txt", ".model", ".jinja", ".md", ".tiktoken", ".vocab", ".bpe"})
_NAMES = frozenset({"LICENSE", "NOTICE"})
_MAX_BYTES = 256 * 1024 * 1024


def copy_companions(source: Path, target: Path, *, skip: frozenset[str]) -> list[str]:
    """Copy companions of `source` (one level of sub-folders) to `target`; gives their relative names.

    Names in `skip`, weight indexes, hidden files, and links that leave the model's own folder (or its hub cache) are
    left out.
    """
    if not source.is_dir():
        return []
    copied = []
    for file in sorted([*source.glob("*"), *source.glob("*/*")]):
        name = file.relative_to(source).as_posix()
        if name in skip or not _is_companion(file, name) or not _stays_inside(file, source):
            continue
        (target / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(file, target / name)
        (target / name).chmod(0o644)
        copied.append(name)
    return copied


def _is_companion(file: Path, name: str) -> bool:
    if any(part.startswith(".") for part in name.split("/")) or name.endswith(".index.json"):
        return False
    wanted = file.suffix in _SUFFIXES or file.name in _NAMES
    return wanted and file.is_file() and file.stat().st_size <= _MAX_BYTES


def _stays_inside(file: Path, source: Path) -> bool:
    """True for plain files and for links into the folder itself or the hub cache's `blobs` beside `snapshots`."""
    real, root = file.resolve(), source.resolve()
    blobs = root.parent.parent / "blobs"
    return real.is_relative_to(root) or real.is_relative_to(blobs)
