"""Running sums over items: the mean of every cell, the standard error of that mean, and who was reached."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from sensitivity.base import Losses
from sensitivity.partial import FORGETFUL, Partial, State


class Moments:
    """Sums over items of a value a cell; kept in `partial` on the way, and taken up from there.

    items: how many items the sums hold; `reached`: bool (units,), set by whoever adds.
    """

    def __init__(self, units: int, formats: int, partial: Partial = FORGETFUL) -> None:
        self._partial = partial
        state = partial.load()
        self.items = int(state.get("items", 0))
        self.reached: NDArray[np.bool_] = np.array(state.get("reached", np.zeros(units, np.bool_)))
        zeros = np.zeros((units, formats))
        self._sum = torch.from_numpy(np.array(state.get("sum", zeros)))
        self._squares = torch.from_numpy(np.array(state.get("squares", zeros)))

    def add(self, values: torch.Tensor, reached: NDArray[np.bool_]) -> None:
        """values: float64 (items, units, formats). reached: bool (units,), which units these items touched."""
        self.items += len(values)
        self._sum += values.sum(0)
        self._squares += values.square().sum(0)
        self.reached |= reached
        self._partial.save(self._state)

    def _state(self) -> State:
        return {
            "items": np.array(self.items), "reached": self.reached,
            "sum": self._sum.numpy(), "squares": self._squares.numpy(),
        }  # fmt: skip

    def mean(self) -> Losses:
        return self._sum.numpy() / self.items

    def stderr(self, samples: int) -> Losses:
        """sqrt(variance / items); with a single item, the Gaussian value mean x sqrt(2 / samples)."""
        mean = self.mean()
        if self.items < 2:
            return mean * math.sqrt(2.0 / samples)
        variance = (self._squares.numpy() - self.items * mean**2) / (self.items - 1)
        return np.asarray(np.sqrt(np.maximum(variance, 0.0) / self.items), np.float64)
