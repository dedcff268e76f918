"""Running sums over items: mean and standard error of every cell, means of resampled items, and who was reached."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from sensitivity.base import Losses
from sensitivity.partial import FORGETFUL, Partial, State
from sensitivity.share import Totals, Values

#: Resampled tables a scoring run keeps. They estimate how many units a plan would change, for which 20 are plenty.
REPLICATES = 20
#: Above this many numbers no resampled tables are kept (1 GiB).
REPLICATE_CELLS = 1 << 27
_STREAM = 0x0B007
_NOBODY = np.zeros(0, np.int64)


class Moments:
    """Sums over items of a value a cell; kept in `partial` on the way, and taken up from there.

    items: how many items the sums hold; `reached`: bool (units,), set by whoever adds. replicates: resampled sums, by
    the Bayesian bootstrap (Rubin 1981): every item has a weight drawn from the exponential distribution, which depends
    on (seed, row) alone, so batches and shards change nothing.
    """

    def __init__(
        self, units: int, formats: int, partial: Partial = FORGETFUL, *, replicates: int = 0, seed: int = 0
    ) -> None:
        self._partial = partial
        self._seed = seed
        self.replicates = replicates if replicates * units * formats <= REPLICATE_CELLS else 0
        state = partial.load()
        self._signed: list[NDArray[np.float32]] = [np.array(state["signed"])] if "signed" in state else []
        self.items = int(state.get("items", 0))
        self.reached: NDArray[np.bool_] = np.array(state.get("reached", np.zeros(units, np.bool_)))
        shapes = {
            "sum": (units, formats), "squares": (units, formats),
            "resampled": (self.replicates, units, formats), "weights": (self.replicates,),
        }  # fmt: skip
        self._sums = {
            name: torch.from_numpy(np.array(state.get(name, np.zeros(shape)))) for name, shape in shapes.items()
        }

    def add(self, values: torch.Tensor, reached: NDArray[np.bool_], rows: NDArray[np.int64] = _NOBODY) -> None:
        """values: float64 (items, units, formats). reached: bool (units,), which units these items touched.

        rows: the items' numbers, where resampled sums are wanted.
        """
        if self.replicates and len(rows):
            weights = torch.from_numpy(np.stack([self._draw(int(row)) for row in rows], axis=1))
            self._sums["resampled"] += torch.einsum("ri,iuf->ruf", weights, values)
            self._sums["weights"] += weights.sum(1)
        self._add(len(values), values.sum(0), values.square().sum(0), reached)

    def _add(self, items: int, sums: torch.Tensor, squares: torch.Tensor, reached: NDArray[np.bool_]) -> None:
        self.items += items
        self._sums["sum"] += sums
        self._sums["squares"] += squares
        self.reached |= reached
        self._partial.save(self._state)

    def add_values(self, values: Values | Totals) -> None:
        """What a batch gave, wherever it was computed."""
        if isinstance(values, Totals):
            sums, squares = torch.from_numpy(values.sums), torch.from_numpy(values.squares)
            self._add(values.items, sums, squares, (values.sums != 0).any(axis=1))
            return
        if values.signed is not None:
            self._signed.append(values.signed.reshape(-1, *values.signed.shape[2:]))
        self.add(torch.from_numpy(values.cells), values.reached, values.rows)

    def signed(self) -> NDArray[np.float32] | None:
        """float32 (items x directions, units, formats): scores before squaring, where they were given."""
        return np.concatenate(self._signed) if self._signed else None

    def _draw(self, row: int) -> NDArray[np.float64]:
        generator = np.random.Generator(np.random.Philox(key=[self._seed ^ _STREAM, row]))
        return generator.standard_exponential(self.replicates)

    def _state(self) -> State:
        return {
            "items": np.array(self.items), "reached": self.reached,
            **{name: total.numpy() for name, total in self._sums.items()},
            **({"signed": np.concatenate(self._signed)} if self._signed else {}),
        }  # fmt: skip

    def mean(self) -> Losses:
        return np.asarray(self._sums["sum"].numpy() / self.items, np.float64)

    def resampled(self) -> NDArray[np.float64]:
        """(replicates, units, formats) means of resampled items."""
        return np.asarray((self._sums["resampled"] / self._sums["weights"][:, None, None]).numpy(), np.float64)

    def stderr(self, samples: int) -> Losses:
        """sqrt(variance / items); with a single item, the Gaussian value mean x sqrt(2 / samples)."""
        mean = self.mean()
        if self.items < 2:
            return mean * math.sqrt(2.0 / samples)
        variance = (self._sums["squares"].numpy() - self.items * mean**2) / (self.items - 1)
        return np.asarray(np.sqrt(np.maximum(variance, 0.0) / self.items), np.float64)
