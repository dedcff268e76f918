"""Doing the same on the CPU and on the GPU, in one process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from bitwright.settings import load_settings
from gpu_kernels.gpu import Memory

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
    """All memory of the GPU but about `left` bytes is taken by somebody else: not by torch, which would keep it."""
    torch.cuda.empty_cache()
    held = Memory(torch.cuda.mem_get_info()[0] - left)
    try:
        yield
    finally:
        held.free()
        torch.cuda.empty_cache()
