"""How much memory this process may take, whether a model would fit into it, and whether it ran out."""

from __future__ import annotations

import math
import resource
from pathlib import Path

from bitwright.core.inventory import Inventory

#: A model in memory, its gradients and its errors need about this much more than its weights.
MEMORY_SHARE = 0.4
_CGROUPS = Path("/sys/fs/cgroup")


#: What to do when memory runs out.
TIGHT = "score it block by block (fisher with the option stream), or use --metric weight-mse, which needs no model"


def ran_out(error: BaseException) -> bool:
    """Whether an error says that memory ran out: Python's own, or what torch's allocator and the system say."""
    words = str(error).lower()
    texts = (
        "not enough memory",
        "cannot allocate memory",
        "can't allocate memory",
        "unable to mmap",
        "bad_alloc",
        "start new thread",
    )
    return isinstance(error, MemoryError) or any(text in words for text in texts)


def too_large(inventory: Inventory) -> bool:
    """Whether the model in float32 needs more than MEMORY_SHARE of the free memory."""
    held = 4 * inventory.weights + 2 * inventory.rest_bytes
    return held > MEMORY_SHARE * free_memory()


def free_memory() -> float:
    """Bytes that this process may still take: of the machine's, of its control group's and of its own limits.

    Infinite where nothing is known.
    """
    known = Path("/proc/meminfo")
    lines = known.read_text(encoding="ascii").splitlines() if known.is_file() else []
    free = next((1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), math.inf)
    for limit, member in ((resource.RLIMIT_DATA, "VmData"), (resource.RLIMIT_AS, "VmSize")):
        soft, _ = resource.getrlimit(limit)
        if soft != resource.RLIM_INFINITY:
            free = min(free, max(0.0, soft - _held(member)))
    return min(free, _group_memory())


def _held(member: str) -> float:
    """Bytes of this process as its status counts them; 0 where that is not known."""
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="ascii").splitlines() if status.is_file() else []
    return next((1024.0 * int(line.split()[1]) for line in lines if line.startswith(member + ":")), 0.0)


def _group_memory() -> float:
    """What the control group (version 2) of this process leaves: the container's --memory, for one."""
    try:
        path = next(
            line.split("::", 1)[1]
            for line in Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines()
            if line.startswith("0::")
        )
        folder = _CGROUPS / path.strip("/")
        limit = (folder / "memory.max").read_text(encoding="ascii").strip()
        used = (folder / "memory.current").read_text(encoding="ascii").strip()
        return math.inf if limit == "max" else max(0.0, float(limit) - float(used))
    except (OSError, StopIteration, ValueError):
        return math.inf
