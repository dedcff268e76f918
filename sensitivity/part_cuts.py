"""How the units of a task are cut into parts, where these stand in the table, and sums over them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import numpy as np
import torch

from bitwright.core.mixed_format import cut
from sensitivity.base import Losses, ScoringTask
from sensitivity.on_device import back, here


class Parts:
    """units: int64 (parts,), the unit of each row of the table."""

    def __init__(self, task: ScoringTask) -> None:
        self.task = task
        self.shapes = [unit.shape for unit in task.inventory.units]
        self.cuts = [cut(task.granularity, shape, task.formats) for shape in self.shapes]
        self._starts = np.cumsum([0, *(found.parts for found in self.cuts)])
        self.units = np.repeat(np.arange(len(self.cuts)), [found.parts for found in self.cuts])

    @property
    def shape(self) -> tuple[int, int]:
        return int(self._starts[-1]), len(self.task.formats)

    def of(self, unit: int) -> slice:
        """The unit's rows of the table."""
        return slice(int(self._starts[unit]), int(self._starts[unit + 1]))

    def lines(self, unit: int, matrices: torch.Tensor) -> torch.Tensor:
        """(..., out, in) -> (..., lines, length)."""
        found: Any = self.cuts[unit].to_lines(cast(Any, matrices), self.shapes[unit])
        return cast(torch.Tensor, found)

    def sums(self, unit: int, lines: torch.Tensor) -> torch.Tensor:
        """Sums over the lines of each part: (..., lines) -> (..., parts)."""
        found = self.cuts[unit]
        if found.block == 1:
            return lines
        index = here(np.repeat(np.arange(found.parts), found.part_lines()))
        return lines.new_zeros(*lines.shape[:-1], found.parts).index_add_(-1, index, lines)

    def squared(self, unit: int, errors: Iterable[torch.Tensor]) -> Losses:
        """float64 (parts, formats): squared errors of the unit, from (out, in) of one format after another."""
        lines = (self.lines(unit, error) for error in errors)
        squared = (torch.linalg.vector_norm(line, dim=-1, dtype=torch.float64).square() for line in lines)
        return back(torch.stack([self.sums(unit, one) for one in squared], dim=-1))

    def energies(self, known: Losses | None = None) -> Losses:
        """float64 (parts, formats): squared errors of all units; `known` with the rows that are NaN there filled in."""
        found = np.full(self.shape, np.nan) if known is None else known
        for unit, spec in enumerate(self.task.inventory.units):
            if np.isnan(found[self.of(unit)]).any():
                found[self.of(unit)] = self.squared(unit, map(here, self.task.deltas.errors(unit)))
            self.task.progress("quantize", (unit + 1) / len(self.cuts), spec.name)
        return found
