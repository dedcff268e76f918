"""A block's units as their stored codes, from which the error of one unit in one format is made when asked."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
import torch

from bitwright.core.formats import Format
from quantizers.base import Stored, dequantize
from quantizers.mixed import quantize
from sensitivity.base import ScoringTask
from sensitivity.blocks import BlockModel
from sensitivity.deltas import unit_weight
from sensitivity.on_device import back, here

#: Codes kept, in numbers of weights of the block (of 4 bytes each); units beyond are quantized again when asked.
KEEP = 2.0


class Codes:
    """Quantization errors of the units of one block, kept as codes where they fit KEEP times the block.

    energies: tell the task's deltas the squared errors of every unit, for those who ask afterwards. wanted: units that
    are asked for; None: all.
    """

    def __init__(
        self, task: ScoringTask, model: BlockModel, block: int, *, energies: bool = False,
        wanted: Collection[int] | None = None,
    ) -> None:  # fmt: skip
        self._task = task
        self._model = model
        self.units = tuple(unit for unit in model.units_of(block) if wanted is None or unit in wanted)
        self.formats: tuple[Format, ...] = task.formats
        # Experts that no token reaches get a stand-in that asks for them.
        energies = energies or model.experts
        self._kept: dict[int, list[Stored]] = {}
        left = KEEP * 4 * sum(task.inventory.units[unit].elements for unit in self.units)
        for unit in self.units:
            size = task.inventory.units[unit].elements * sum(max(1.0, float(f.bits) / 8) for f in self.formats)
            if size <= left:
                self._kept[unit] = list(self._quantized(unit))
                left -= size
            if energies and not task.deltas.knows_energy(unit):
                energy = [float(error.double().square().sum()) for error in self.errors(unit)]
                task.deltas.know_energy(unit, np.array(energy, np.float64))

    def cells(self, unit: int) -> int:
        return self._task.inventory.units[unit].elements

    def errors(self, unit: int) -> Iterator[torch.Tensor]:
        """float32 (out, in) error of the unit in one format after another."""
        weight = self._weight(unit)
        for stored in self._kept.get(unit) or self._quantized(unit):
            yield here(dequantize(stored)).sub_(weight)

    def error(self, unit: int, column: int) -> torch.Tensor:
        """float32 (out, in) error of the unit in one format."""
        weight, kept = self._weight(unit), self._kept.get(unit)
        stored = kept[column] if kept else self._stored(unit, weight, self.formats[column])
        return here(dequantize(stored)).sub_(weight)

    def _quantized(self, unit: int) -> Iterator[Stored]:
        weight = self._weight(unit)
        for format in self.formats:
            yield self._stored(unit, weight, format)

    def _stored(self, unit: int, weight: torch.Tensor, format: Format) -> Stored:
        values, name = np.ascontiguousarray(back(weight)), self._task.inventory.units[unit].name
        return quantize(self._task.deltas.quantizer, values, format, name=name)

    def _weight(self, unit: int) -> torch.Tensor:
        if self._model.reader.dtype == torch.float32:
            return self._model.view(unit)
        return here(unit_weight(self._task.source, self._task.inventory.units[unit]))
