"""The device that heavy arithmetic runs on: the one place that decides it.

The setting `device` (BITWRIGHT_DEVICE) is `auto`: CUDA where torch sees some, else the CPU; or `cpu`; or any device
that torch can open and that computes in float64 (`cuda`, `cuda:1`, ...; Apple's `mps` cannot). What is done on another
device than the CPU can differ from the CPU's in the last bits, so keys of whatever is kept hold `device_words()`.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from importlib import metadata
from importlib.util import find_spec
from typing import TYPE_CHECKING

from bitwright.core.errors import InvalidSetting
from bitwright.settings import load_settings

if TYPE_CHECKING:
    import torch

AUTO, CPU = "auto", "cpu"
_FULL = ("CUDA error: out of memory", "_STATUS_ALLOC_FAILED")


def accelerator() -> torch.device | None:
    """The device beside the CPU, with its index, or None: the CPU does the work. Loads torch only where it must.

    Raises InvalidSetting for a device that torch does not see here.
    """
    return _opened(load_settings().device)


def compute_device() -> torch.device:
    """The same as a device of torch, the CPU too. Raises InvalidSetting."""
    import torch

    return accelerator() or torch.device(CPU)


def device_words() -> str | None:
    """What device computes, for keys and people: `cuda (NVIDIA H100 80GB HBM3)`; None for the CPU.

    Without the index: equal devices of a machine, and of two machines, compute the same. Raises InvalidSetting.
    """
    device = accelerator()
    if device is None:
        return None
    import torch

    name = getattr(torch.get_device_module(device), "get_device_name", None)
    return device.type if name is None else f"{device.type} ({name(device)})"


def device_full(error: BaseException) -> bool:
    """Whether an error says that the memory of a device ran out."""
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(error, RuntimeError):
        return False
    # What cuBLAS, cuSOLVER and the driver take for themselves does not pass through torch's allocator.
    words = str(error)
    return isinstance(error, torch.OutOfMemoryError) or any(said in words for said in _FULL)


@lru_cache(maxsize=8)
def _opened(name: str) -> torch.device | None:
    if name == CPU or (name == AUTO and not _may_see_cuda()):
        return None
    import torch

    if name == AUTO:
        if not torch.cuda.is_available():
            return None
        name = "cuda"
    try:
        # Allocated, computed on in float64 and read back: what it is named for must work, not only its name.
        ones = torch.ones(2, dtype=torch.float64, device=name)
        works = float((ones @ ones).cpu()) == 2.0
    except (RuntimeError, AssertionError, TypeError, ValueError, NotImplementedError) as error:
        raise _unseen(name, str(error).splitlines()[0][:120] if str(error) else type(error).__name__) from error
    if not works:
        raise _unseen(name, "1 + 1 is not 2 there")
    return None if ones.device.type == CPU else ones.device


def _may_see_cuda() -> bool:
    """False where there is no torch, or a build of it for the CPU: seconds of loading it for the answer no."""
    if find_spec("torch") is None:
        return False
    return not metadata.version("torch").endswith("+cpu")


def _unseen(name: str, why: str) -> InvalidSetting:
    import torch

    seen = [AUTO, CPU, *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
    other = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    seen += [str(other)] if other is not None and other.type not in seen and other.type != "cuda" else []
    return InvalidSetting(
        f"BITWRIGHT_DEVICE names a device that torch {torch.__version__} cannot compute in float64 on",
        expected=f"one of {', '.join(seen)}", got=f"{name}: {why}",
        hint="leave BITWRIGHT_DEVICE out to take CUDA where there is some and the CPU else",
    )  # fmt: skip
