"""What every metric is: a function from a scoring task to losses with their doubt."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bitwright.core.formats import Format
from bitwright.core.inventory import Inventory
from bitwright.models import ModelSource
from gpu_kernels.compute import device_words
from sensitivity.partial import FORGETFUL, Partial
from sensitivity.share import ALONE, Share

if TYPE_CHECKING:
    from sensitivity.data import Data
    from sensitivity.deltas import Deltas

Progress = Callable[[str, float, str], None]
Losses = NDArray[np.float64]

#: Version of the numbers: raised when a change in the code changes a table.
NUMERICS = 9


def numerics() -> int | str:
    """The same for keys: with the device, where that is not the CPU, because its bits can differ."""
    device = device_words()
    return NUMERICS if device is None else f"{NUMERICS} on {device}"


def silent(stage: str, fraction: float, message: str) -> None:
    """The progress callback of those who do not listen."""


@dataclass(frozen=True, eq=False)
class ScoringTask:
    """Everything a metric may use.

    data: the scoring part of the calibration, or None (metrics that need none).
    deltas: quantization errors of each unit, with the quantizer that will be used.
    samples: label samples an item, or None for the metric's own default.
    partial: where half-done sums are kept, so that a stopped run goes on.
    share: who computes the batches of a pass (see share.py).
    granularity: what gets a loss of its own; finer than a tensor, metrics that can give parts do so (`score_parts`).
    target: stored bits a weight that the plan will have, for metrics that look at one target (trait `target`).
    """

    source: ModelSource
    inventory: Inventory
    formats: tuple[Format, ...]
    deltas: Deltas
    data: Data | None
    seed: int
    samples: int | None
    options: Mapping[str, Any]
    progress: Progress
    partial: Partial = FORGETFUL
    granularity: str = "tensor"
    share: Share = ALONE
    target: float | None = None

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.inventory.units), len(self.formats)


@dataclass(frozen=True, eq=False)
class Scores:
    """loss, stderr: (units, formats); NaN stderr = unknown. parameters: whatever changes the numbers.

    unmeasured: names of units whose losses are a stated fallback, not a measurement. response: how sums become KL (see
    response.py). extras: further arrays whose last two axes are (units, formats), such as resampled tables.
    menus: (units, columns) format names, where a metric gives every unit a menu of its own (see core.table).
    """

    loss: Losses
    stderr: Losses
    loss_unit: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    tokens: int = 0
    samples: int = 0
    unmeasured: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    response: Mapping[str, Any] | None = None
    extras: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    menus: tuple[tuple[str, ...], ...] = ()


class Metric(Protocol):
    """`needs_data`: whether calibration data is required. `options`: names of the options it takes."""

    @property
    def name(self) -> str: ...

    @property
    def needs_data(self) -> bool: ...

    @property
    def options(self) -> frozenset[str]: ...

    def score(self, task: ScoringTask) -> Scores:
        """Losses of every unit in every format. Raises NotFinite, InvalidCalibration, Unsupported."""
        ...
