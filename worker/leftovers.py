"""Files that killed processes left: none lies under a final name, so nothing but room depends on them."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from bitwright.jobs.store import JobStore
from bitwright.settings import Settings

DAY = 24 * 3600.0
#: Kind of the blobs that `worker.fanout` leaves.
PARTS = "parts"
_log = logging.getLogger("bitwright.worker")


def remove_leftovers(store: JobStore, settings: Settings) -> int:
    """Remove scratch folders of attempts that no longer run and unfinished files older than any attempt can be.

    Gives the number removed. A folder that cannot be removed stays for the next turn.
    """
    found = [*_dead_scratch(store, settings.state_dir / "tmp"), *_unfinished(settings)]
    for path in found:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    if found:
        _log.info("removed %d unfinished files and folders of processes that were killed", len(found))
    return len(found)


def _dead_scratch(store: JobStore, root: Path) -> list[Path]:
    """Folders `<owner>/<job>-<attempt>`. They are listed before the table is asked: an attempt runs in the table before
    its folder is made, so one that does not run by then never will."""
    folders = [folder for owner in _entries(root) if owner.is_dir() for folder in _entries(owner)]
    running = {f"{job}-{attempt}" for job, attempt in store.running_attempts()}
    return [folder for folder in folders if folder.name not in running]


def _unfinished(settings: Settings) -> Iterator[Path]:
    """Temporary names of blobs (`BlobStore.memo`, `atomic_write`) and, kept longer because a rerun resumes them,
    half-written checkpoints and half-done sums."""
    now = time.time()
    blobs = (path for kind in _entries(settings.blob_dir) if kind.is_dir() for path in _entries(kind))
    temporary = (path for path in blobs if _temporary(path.name))
    hidden = (path for path in _entries(settings.checkpoint_dir) if path.name.startswith("."))
    resumed = [path for path in hidden if path.name.endswith(".partial")]
    resumed += [path for path in _entries(settings.blob_dir / "partial") if not path.name.startswith(".")]
    parts = _entries(settings.blob_dir / PARTS)
    for path in parts:  # what they were parts of has its own blob
        if _older(path, now - settings.retention_days * DAY):
            yield path
    for paths, age in ((temporary, max(DAY, settings.job_seconds)), (resumed, settings.retention_days * DAY)):
        for path in paths:
            if _older(path, now - age):
                yield path


def _temporary(name: str) -> bool:
    return name.startswith(".build.") or (name.startswith(".") and name.endswith(".tmp"))


def _older(path: Path, moment: float) -> bool:
    try:
        return path.lstat().st_mtime < moment
    except OSError:  # its process has just finished it
        return False


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []
