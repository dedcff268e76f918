"""How much memory this process may take, whether a model would fit into it, and whether it ran out."""

from __future__ import annotations

import math
import resource
from pathlib import Path

from bitwright.core import exhaustion
from bitwright.core.inventory import Inventory
from gpu_kernels.compute import accelerator, device_full

#: A model in memory, its gradients and its errors need about this much more than its weights.
MEMORY_SHARE = 0.4
#: Limits of a process, and what its status calls the memory that they count.
_COUNTED = {resource.RLIMIT_DATA: "VmData", resource.RLIMIT_AS: "VmSize"}
_CGROUPS = Path("/sys/fs/cgroup")
#: Files of a control group: its limit, what it uses; and the part of its statistics that it could drop.
_V2 = ("memory.max", "memory.current", "inactive_file")
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


#: What to do when memory runs out while a model is run.
TIGHT = (
    "score it block by block (a recipe with [metric_options] stream = true; where it is already, with a smaller "
    "activation_mib than 1024), or use --metric weight-mse, which holds one layer at a time and runs no model"
)
#: The same for those who run none.
ONE_LAYER = (
    "give the process more memory, or score fewer formats at once: this metric holds one layer at a time already"
)


def ran_out(error: BaseException) -> bool:
    """Whether an error says that memory ran out, the host's or the device's."""
    return exhaustion.ran_out(error) or device_full(error)


def too_large(inventory: Inventory) -> bool:
    """Whether the model in float32 needs more than MEMORY_SHARE of the free memory, the host's or the device's."""
    held = 4 * inventory.weights + 2 * inventory.rest_bytes
    return held > MEMORY_SHARE * min(free_memory(), free_on_device())


def free_on_device() -> float:
    """Bytes that the computing device may still hold; infinite for the CPU, and where that is not told."""
    device = accelerator()
    if device is None:
        return math.inf
    import torch

    ask = getattr(torch.get_device_module(device), "mem_get_info", None)
    return math.inf if ask is None else float(ask(device)[0])


def free_memory() -> float:
    """Bytes that this process may still take: of the machine's, of its control group's and of its own limits.

    Infinite where nothing is known.
    """
    known = Path("/proc/meminfo")
    lines = known.read_text(encoding="ascii").splitlines() if known.is_file() else []
    free = next((1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), math.inf)
    return min(free, *map(left_of, _COUNTED), group_memory())


def left_of(limit: int) -> float:
    """Bytes that a limit of this process (RLIMIT_DATA or RLIMIT_AS) leaves it; infinite without one."""
    soft, _ = resource.getrlimit(limit)
    return math.inf if soft == resource.RLIM_INFINITY else max(0.0, soft - _held(_COUNTED[limit]))


def _held(member: str) -> float:
    """Bytes of this process as its status counts them; 0 where that is not known."""
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="ascii").splitlines() if status.is_file() else []
    return next((1024.0 * int(line.split()[1]) for line in lines if line.startswith(member + ":")), 0.0)


def group_memory() -> float:
    """What the control group of this process leaves: the container's --memory, for one. Pages of files that the kernel
    would drop first count as free: a group that has read much is not full.

    Version 2 has one tree; version 1 a tree for memory, in which a container sees its own group as the root.
    """
    try:
        groups = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines()]
    except (OSError, ValueError):
        return math.inf
    free = math.inf
    for _, controllers, path in groups:
        tree, names = (_CGROUPS, _V2) if not controllers else (_CGROUPS / "memory", _V1)
        if not controllers or "memory" in controllers.split(","):
            free = min(free, *(_left(tree / below, *names) for below in (path.strip("/"), ".")))
    return free


def _left(folder: Path, limit: str, used: str, droppable: str) -> float:
    """Bytes that a control group leaves; infinite where it says nothing or sets no limit."""
    try:
        most = float((folder / limit).read_text(encoding="ascii").strip().replace("max", "inf"))
        held = float((folder / used).read_text(encoding="ascii"))
        stat = dict(line.split(" ", 1) for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines())
        return max(0.0, most - held + float(stat.get(droppable, 0)))
    except (OSError, ValueError):
        return math.inf
