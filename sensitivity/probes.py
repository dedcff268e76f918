"""Measuring many changes of one unit each: in memory, or all together in one walk through the blocks.

In a walk (stream_measure.py) a probe joins at its unit's block, with what the original hands on there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwright.core.inventory import Unit
from sensitivity.base import ScoringTask
from sensitivity.data import Data
from sensitivity.evaluate import measure_probes_streamed, measure_weights
from sensitivity.heads import head_for
from sensitivity.quality import Quality
from sensitivity.runner import Runner, load_runner
from sensitivity.stream_options import activation_bytes, streams


@dataclass(frozen=True, eq=False)
class Probe:
    """unit: number of the one that is changed; weights: float32 (out, in), made when asked."""

    unit: int
    weights: Callable[[], NDArray[np.float32]]


class Prober:
    """The model opened once for all probes. loss_unit, warnings: of its tables. Raises as `load_runner`, and for
    models that cannot be read block by block Unsupported."""

    def __init__(self, task: ScoringTask) -> None:
        self._task = task
        self.streamed = streams(task)
        self._runner: Runner | None = None
        if self.streamed:
            task.deltas.keep_nothing()
        else:
            self._runner = load_runner(task.source, task.inventory)
        self.warnings = () if self._runner is None else self._runner.warnings
        self.loss_unit = head_for(task.inventory.task).loss_unit

    def measure(self, probes: Mapping[str, Probe], data: Data) -> dict[str, Quality]:
        """Quality of each probe against the original. Raises NotFinite, Unsupported, OutOfResources."""
        task, units = self._task, self._task.inventory.units
        if self._runner is not None:
            makers = {name: _by_name(units[probe.unit], probe) for name, probe in probes.items()}
            return measure_weights(self._runner, makers, data, progress=task.progress, partial=task.partial)
        return measure_probes_streamed(
            task.source, task.inventory, {name: (probe.unit, probe.weights) for name, probe in probes.items()}, data,
            progress=task.progress, partial=task.partial, activation_bytes=activation_bytes(task),
        )  # fmt: skip


def _by_name(unit: Unit, probe: Probe) -> Callable[[], dict[str, NDArray[np.float32]]]:
    return lambda: {unit.name: probe.weights()}
