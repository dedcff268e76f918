"""Doing the same on the CPU and on the GPU, in one process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from bitwright.settings import load_settings

GPU = os.environ.get("BITWRIGHT_TEST_DEVICE", "cuda")
CPU = "cpu"


@contextmanager
def on(device: str) -> Iterator[None]:
    """The block computes on `device`, as if BITWRIGHT_DEVICE had named it."""
    before = os.environ.get("BITWRIGHT_DEVICE")
    os.environ["BITWRIGHT_DEVICE"] = device
    load_settings.cache_clear()
    try:
        yield
    finally:
        os.environ.pop("BITWRIGHT_DEVICE")
        if before is not None:
            os.environ["BITWRIGHT_DEVICE"] = before
        load_settings.cache_clear()


@contextmanager
def nearly_full(left: int) -> Iterator[None]:
    """All memory of the GPU but about `left` bytes is taken by somebody else."""
    torch.cuda.empty_cache()
    held = torch.empty(torch.cuda.mem_get_info()[0] - left, dtype=torch.uint8, device="cuda")
    try:
        yield
    finally:
        del held
        torch.cuda.empty_cache()
