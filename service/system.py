"""What an operator looks at: who works on what, until when, what waits, what the disk holds, which versions run."""

from __future__ import annotations

import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import bitwright
from bitwright.jobs import states
from bitwright.jobs.values import Job, timestamp
from service.state import State

#: Packages whose versions change what is computed. Their metadata alone is read; none is imported.
PACKAGES = ("numpy", "torch", "transformers", "safetensors", "compressed-tensors", "highspy", "fastapi", "sqlalchemy")
#: Running jobs and blobs counted at most: a look must stay cheap.
MAX_RUNNING, MAX_BLOBS = 200, 20_000


def system_document(state: State, tenant: str) -> dict[str, Any]:
    """{version, versions, queues, workers, cache, limits}; ids of jobs only where they are the caller's own."""
    found = state.store.statistics()
    running = state.store.page(states=(states.RUNNING,), limit=MAX_RUNNING)
    settings = state.settings
    return {
        "version": bitwright.__version__,
        "versions": {"python": platform.python_version(), **_versions()},
        "states": dict(found.states),
        "queues": [{"queue": name, "waiting": count} for name, count in sorted(found.queued.items())],
        "oldest_waiting_seconds": found.oldest_queued_seconds,
        "expired_leases": found.expired_leases,
        "workers": _workers(running, tenant),
        "cache": cache_sizes(settings.blob_dir),
        "limits": {
            "embedded_workers": settings.workers,
            "lease_seconds": settings.lease_seconds,
            "max_attempts": settings.max_attempts,
            "job_seconds": settings.job_seconds,
            "retention_days": settings.retention_days,
            "max_request_bytes": settings.max_request_bytes,
            "broker": settings.broker_url is not None,
        },
    }


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def _workers(running: list[Job], tenant: str) -> list[dict[str, Any]]:
    """One row for each job that runs: the worker that holds it, and until when its lease lasts (None: parked)."""
    now = time.time()
    return [
        {
            "worker": job.owner,
            "job": job.id if job.tenant == tenant else None,
            "kind": job.kind,
            "stage": job.stage,
            "attempt": job.attempt,
            "since": timestamp(job.started_at),
            "lease_seconds_left": None if job.lease_until is None else round(job.lease_until - now, 1),
        }
        for job in running
    ]


def cache_sizes(root: Path) -> list[dict[str, Any]]:
    """Blobs by kind: {kind, blobs, bytes, whole}; whole is false where the counting stopped at MAX_BLOBS."""
    found = []
    for kind in sorted(_folders(root)):
        blobs = size = 0
        for entry in os.scandir(root / kind):
            if blobs >= MAX_BLOBS:
                break
            blobs += 1
            size += _size(entry)
        found.append({"kind": kind, "blobs": blobs, "bytes": size, "whole": blobs < MAX_BLOBS})
    return found


def _folders(root: Path) -> list[str]:
    try:
        return [entry.name for entry in os.scandir(root) if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:  # nothing was stored yet
        return []


def _size(entry: os.DirEntry[str]) -> int:
    """Bytes of a blob, a file or a folder of files; 0 for one that was collected meanwhile."""
    try:
        if entry.is_dir(follow_symlinks=False):
            return sum(inner.stat(follow_symlinks=False).st_size for inner in os.scandir(entry.path))
        return entry.stat(follow_symlinks=False).st_size
    except FileNotFoundError:
        return 0
