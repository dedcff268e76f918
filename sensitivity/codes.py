"""A block's units as their stored codes, from which the error of one unit in one format is made when asked."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from bitwright.core.formats import Format
from quantizers.base import Stored, dequantize
from quantizers.mixed import quantize
from sensitivity.base import ScoringTask
from sensitivity.blocks import BlockModel
from sensitivity.deltas import unit_weight

#: Codes kept, in numbers of weights of the block (of 4 bytes each); units beyond are quantized again when asked.
KEEP = 2.0


class Codes:
    """Quantization errors of the units of one block, kept as codes where they fit KEEP times the block."""

    def __init__(self, task: ScoringTask, model: BlockModel, block: int) -> None:
        self._task = task
        self._model = model
        self.units = model.units_of(block)
        self.formats: tuple[Format, ...] = task.formats
        self._kept: dict[int, list[Stored]] = {}
        left = KEEP * 4 * sum(task.inventory.units[unit].elements for unit in self.units)
        for unit in self.units:
            size = task.inventory.units[unit].elements * sum(max(1.0, float(f.bits) / 8) for f in self.formats)
            if size > left and not model.experts:
                continue
            stored = list(self._quantized(unit))
            if size <= left:
                self._kept[unit] = stored
                left -= size
            if model.experts:
                # Experts that no token reaches get a stand-in that asks for this.
                weight = self._weight(unit)
                energy = [float((torch.from_numpy(dequantize(one)) - weight).double().square().sum()) for one in stored]
                task.deltas.know_energy(unit, np.array(energy, np.float64))

    def cells(self, unit: int) -> int:
        return self._task.inventory.units[unit].elements

    def errors(self, unit: int) -> Iterator[torch.Tensor]:
        """float32 (out, in) error of the unit in one format after another."""
        weight = self._weight(unit)
        for stored in self._kept.get(unit) or self._quantized(unit):
            yield torch.from_numpy(dequantize(stored)).sub_(weight)

    def _quantized(self, unit: int) -> Iterator[Stored]:
        spec = self._task.inventory.units[unit]
        weight = unit_weight(self._task.source, spec)
        for format in self.formats:
            yield quantize(self._task.deltas.quantizer, weight, format, name=spec.name)

    def _weight(self, unit: int) -> torch.Tensor:
        if self._model.reader.dtype == torch.float32:
            return self._model.view(unit)
        return torch.from_numpy(unit_weight(self._task.source, self._task.inventory.units[unit]))
