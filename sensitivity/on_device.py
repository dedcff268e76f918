"""The computing device as models and metrics see it: what goes there and what comes back.

Models, batches, gradients and errors lie on the device; draws (labels, noise) and quantizers' codes are made on the
CPU, so that a seed means the same everywhere. What a metric adds up is brought back once a batch. On the CPU nothing
is copied.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

import torch
from numpy.typing import NDArray

from gpu_kernels.compute import compute_device
from quantizers.on_device import placed


def computing() -> torch.device:
    """The device, set up to give the same numbers every time. Raises InvalidSetting."""
    device = compute_device()
    if device.type == "cuda":
        _settle(device)
    return device


@lru_cache(maxsize=8)
def _settle(device: torch.device) -> None:
    """float32 means float32 (no TF32), and of several kernels the one whose sums have one order (docs.pytorch.org,
    "Reproducibility"); where torch has none, it says so. Fused attention has one backwards only where torch is told to
    refuse whatever has none (`warn_only=False`): here attention is done as its formula is written."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    for fused in (
        torch.backends.cuda.enable_flash_sdp, torch.backends.cuda.enable_mem_efficient_sdp,
        torch.backends.cuda.enable_cudnn_sdp,
    ):  # fmt: skip
        fused(False)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # torch's thread of gradients has no context of the device until something runs there, and cuBLAS warns of that.
    with torch.inference_mode(False), torch.enable_grad():
        torch.ones(2, device=device, requires_grad=True).square().sum().backward()  # type: ignore[no-untyped-call]


def here(array: NDArray[Any]) -> torch.Tensor:
    """The array on the computing device (see quantizers.on_device.placed)."""
    return placed(array, computing())


def back(tensor: torch.Tensor) -> NDArray[Any]:
    """The tensor's numbers on the CPU; there, its own memory."""
    found: NDArray[Any] = tensor.detach().cpu().numpy()
    return found


def all_finite(values: torch.Tensor) -> bool:
    """Whether no number is NaN or infinite. Their sum says so at a tenth of the time, unless it overflows itself."""
    return bool(torch.isfinite(values.sum()) or torch.isfinite(values).all())
