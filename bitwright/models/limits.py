"""Every bound that the readers of untrusted model files keep, in one place (research/06 C3 and C6)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds in bytes or counts. A file beyond one is refused before memory is spent on it."""

    header_bytes: int = 32 << 20
    tensors: int = 1_000_000
    units: int = 1_000_000
    name_bytes: int = 1024
    rank: int = 8
    #: Largest size of one dimension: above it numpy cannot make even an empty array.
    dimension: int = 1 << 48
    config_bytes: int = 4 << 20
    config_depth: int = 32
    index_bytes: int = 64 << 20
    shards: int = 10_000
    model_bytes: int = 200 << 30
    directory_entries: int = 100_000


DEFAULT_LIMITS = Limits()
