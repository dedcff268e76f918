"""Metrics that need the whole model in memory: they say so before it is loaded, where it cannot fit."""

from __future__ import annotations

from bitwright.core.errors import OutOfResources
from sensitivity import memory
from sensitivity.base import ScoringTask
from sensitivity.runner import Runner, load_runner

#: Of the free memory: float32 weights beyond it leave no room for a forward pass.
WHOLE_SHARE = 0.9


def whole_runner(task: ScoringTask, metric: str) -> Runner:
    """`load_runner`. Raises OutOfResources where the model is too large, naming metrics that can."""
    needed = 4 * task.inventory.weights + 2 * task.inventory.rest_bytes
    free = min(memory.free_memory(), memory.free_on_device())
    if needed > WHOLE_SHARE * free:
        raise OutOfResources(
            f"{metric} needs the whole model in memory, and it does not fit",
            expected=f"{needed / WHOLE_SHARE / 2**20:.0f} MiB free, for {needed / 2**20:.0f} MiB in float32",
            got=f"{free / 2**20:.0f} MiB",
            hint=f"metrics that read it block by block: {', '.join(streaming_metrics())}",
        )  # fmt: skip
    return load_runner(task.source, task.inventory)


def streaming_metrics() -> list[str]:
    """Names of the metrics that can read a model block by block, and of those that need none."""
    from sensitivity.catalog import METRICS

    names = [entry.name for entry in METRICS if "stream" in METRICS.load(entry.name).options]
    return [*names, *(entry.name for entry in METRICS if entry.traits.get("passes") == "none")]
