"""Running sums over items: the mean of every cell and the standard error of that mean."""

from __future__ import annotations

import math

import numpy as np
import torch

from sensitivity.base import Losses


class Moments:
    """Sums over items of a value a cell, for its mean and the standard error of that mean."""

    def __init__(self, units: int, formats: int) -> None:
        self.items = 0
        self._sum = torch.zeros(units, formats, dtype=torch.float64)
        self._squares = torch.zeros(units, formats, dtype=torch.float64)

    def add(self, values: torch.Tensor) -> None:
        """values: float64 (items, units, formats)."""
        self.items += len(values)
        self._sum += values.sum(0)
        self._squares += values.square().sum(0)

    def mean(self) -> Losses:
        return self._sum.numpy() / self.items

    def stderr(self, samples: int) -> Losses:
        """sqrt(variance / items); with a single item, the Gaussian value mean x sqrt(2 / samples)."""
        mean = self.mean()
        if self.items < 2:
            return mean * math.sqrt(2.0 / samples)
        variance = (self._squares.numpy() - self.items * mean**2) / (self.items - 1)
        return np.asarray(np.sqrt(np.maximum(variance, 0.0) / self.items), np.float64)
