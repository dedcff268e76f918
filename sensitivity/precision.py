"""How many label samples and items make the standard errors that were asked for.

A cell's value of one item with K samples has variance  between + within / K.  Both come from a pilot of PILOT_ITEMS
items. The error of a mean over n items is sqrt((between + within / K) / n), and a batch costs one forward and K
backward passes, 2 + 4 K in multiplications a weight and token (research/08, 2h). The cheapest K for a given error is
therefore sqrt(within / between x 2 / 4), whatever the error; then n follows. Where n is more than the data holds, K
grows instead.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from sensitivity.base import Losses
from sensitivity.on_device import back

PILOT_ITEMS = 8
MOST_SAMPLES = 64
#: Samples beyond this many times within / between add less than a tenth to what the items themselves are worth.
PLENTY = 10.0
#: Forward and backward cost of a sample, in multiplications a weight and token.
FORWARD, BACKWARD = 2.0, 4.0


@dataclass(frozen=True)
class Effort:
    """samples an item, items, and the median relative standard error that they should give."""

    samples: int
    items: int
    expected: float


class Pilot:
    """Collects item losses of a few items sample by sample. values: float64 (samples, items, units, formats)."""

    def __init__(self) -> None:
        self._values: list[torch.Tensor] = []

    def add(self, values: torch.Tensor) -> None:
        self._values.append(values)

    def variances(self) -> tuple[Losses, Losses, Losses]:
        """(mean, between, within): of every cell, relative variances of an item's mean and of one sample in an item."""
        values = torch.cat(self._values, dim=1)
        samples = values.shape[0]
        mean = values.mean((0, 1))
        within = values.var(dim=0, unbiased=True).mean(0) if samples > 1 else 2 * mean.square()
        between = (values.mean(0).var(dim=0, unbiased=True) - within / samples).clamp(min=0.0)
        return back(mean), back(between), back(within)


def choose(pilot: Pilot, wanted: float, items: int) -> Effort:
    """The cheapest effort whose median relative standard error over cells is at most `wanted`.

    items: how many the data holds. When no number of samples worth its cost reaches it, all items are used, and
    `expected` says how far that gets.
    """
    mean, between, within = pilot.variances()
    known = mean > 0
    between = between[known] / mean[known] ** 2
    within = within[known] / mean[known] ** 2
    if not between.size:
        return Effort(1, items, math.nan)

    def error(samples: int, count: int) -> float:
        return float(np.sqrt(np.median(between + within / samples) / count))

    ratio = float(np.median(within)) / max(float(np.median(between)), 1e-12)
    samples = min(MOST_SAMPLES, max(1, round(math.sqrt(ratio * FORWARD / BACKWARD))))
    while samples < MOST_SAMPLES and error(samples, items) > wanted and samples < PLENTY * ratio:
        samples += 1
    count = min(items, max(1, math.ceil((error(samples, 1) / wanted) ** 2)))
    return Effort(samples, count, error(samples, count))
