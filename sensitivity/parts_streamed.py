"""`fisher` of parts of units, of a model that is read block by block (walk.py).

Held beside a walk: the codes of a block's units (codes.py), one unit's error in one format, gradients of at most a part
of what activations may take, and the table four times: sums and squares of a group of items and of all. Rows need no
gradient where their positions are few (see directional.py):

    score[row, f] = sum over positions of d_t,row (dW_f x_t)_row,   y_f = dW_f x_t once for every direction
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from bitwright.core.errors import NotFinite
from sensitivity.base import Scores, ScoringTask
from sensitivity.blocks import BlockModel, open_blocks
from sensitivity.codes import Codes
from sensitivity.data import Data
from sensitivity.directional import replays
from sensitivity.fisher_streamed import directions_of
from sensitivity.fisher_table import required
from sensitivity.heads import Direction
from sensitivity.moments import Moments
from sensitivity.on_device import all_finite, back, computing
from sensitivity.part_cuts import Parts
from sensitivity.parts import Ran, finished, refuse_options_of_tensors
from sensitivity.passes import by_length
from sensitivity.share import Totals, add_up
from sensitivity.stream_options import activation_bytes, dtype_of
from sensitivity.streaming import GRADIENT_CELLS, GRADIENT_PART, group_items
from sensitivity.walk import Use, Walk, walk_rows


def stream_parts(task: ScoringTask) -> Scores:
    """As `parts.fisher`, a group of items after another; what is done of them is kept in `task.partial` or shared.

    Raises Unsupported for models that cannot be read block by block, InvalidCalibration, InvalidInput, NotFinite.
    """
    refuse_options_of_tensors(task)
    data, parts = required(task), Parts(task)
    task.deltas.keep_nothing()
    model = open_blocks(task.source, task.inventory, dtype_of(task))
    samples = model.head.default_samples if task.samples is None else task.samples
    moments, order, size = Moments(*parts.shape, task.partial), by_length(data), group_items(data)
    count, energy = -(-data.items // size), np.full(parts.shape, np.nan)

    def choose(output: torch.Tensor, rows: np.ndarray, batch: Data) -> list[Direction]:
        return list(model.head.directions(output, rows, samples, task.seed))

    def compute(run: range) -> Iterator[Totals]:
        for number in run:
            rows, told = order[number * size : (number + 1) * size], (number / count, (number + 1) / count)
            group = _Group(parts, model, energy, min(GRADIENT_CELLS, activation_bytes(task) // 4 // GRADIENT_PART))
            walk = walk_rows(task, model, rows, choose, group.of, told, activation_bytes(task))
            yield Totals(back(group.sums), back(group.squares), len(rows), len(walk.weights[0]))

    add_up(moments, task.share, count, size, compute)
    ran = Ran(samples, directions_of(model, samples), model.head.loss_unit, streamed=True)
    return finished(task, parts, parts.energies(energy), moments, ran)


class _Group:
    """Sums of one group of items, filled block by block. energy: (parts, formats), filled where it is NaN."""

    def __init__(self, parts: Parts, model: BlockModel, energy: np.ndarray, most: int) -> None:
        self._parts, self._model, self._energy, self._most = parts, model, energy, most
        self.sums = torch.zeros(parts.shape, dtype=torch.float64, device=computing())
        self.squares = torch.zeros_like(self.sums)

    def of(self, walk: Walk) -> _Group:
        self._walk = walk
        return self

    def begin(self, block: int) -> None:
        self._codes: Codes | None = Codes(self._parts.task, self._model, block)
        for unit in self._codes.units:
            rows = self._parts.of(unit)
            if np.isnan(self._energy[rows]).any():
                self._energy[rows] = self._parts.squared(unit, self._codes.errors(unit))

    def end(self, block: int) -> None:
        self._codes = None

    def see(self, number: int, uses: Sequence[Use], batch: Data) -> None:
        """Adds what a batch's items have in the block's units."""
        weight = self._walk.weights[number] / (2 * self._walk.norms[number])
        of_unit: dict[int, list[Use]] = {}
        for use in uses:
            of_unit.setdefault(use.unit, []).append(use)
        for unit, found in of_unit.items():
            rows = self._parts.of(unit)
            for values in self._values(unit, found, weight):
                if not all_finite(values):
                    raise NotFinite("scoring gave NaN or infinity", hint="the model overflows on this calibration data")
                self.sums[rows] += values.sum(0)
                self.squares[rows] += values.square().sum(0)

    def _values(self, unit: int, uses: Sequence[Use], weight: torch.Tensor) -> Iterator[torch.Tensor]:
        """float64 (items, parts, formats) losses, some items at a time. weight: (directions, items)."""
        formats, positions = len(self._parts.task.formats), sum(use.inputs.shape[1] for use in uses)
        if self._parts.cuts[unit].granularity.startswith("row") and replays(formats, positions, len(weight)):
            yield self._replayed(unit, uses, weight)
            return
        assert self._codes is not None
        rows = self._parts.of(unit)
        held = max(self._codes.cells(unit), 2 * formats * (rows.stop - rows.start))
        step = max(1, self._most // held)
        for first in range(0, weight.shape[1], step):
            yield self._by_gradients(unit, uses, slice(first, first + step), weight[:, first : first + step])

    def _by_gradients(self, unit: int, uses: Sequence[Use], some: slice, weight: torch.Tensor) -> torch.Tensor:
        """float64 (items, parts, formats) of some items: G of one direction, and its products with every dW."""
        assert self._codes is not None
        values = self._nothing(unit, weight)
        for k, weights in enumerate(weight):
            gradient = _summed(
                torch.bmm(use.gradients[k][some].float().transpose(1, 2), use.inputs[some].float()) for use in uses
            )
            lines = self._parts.lines(unit, gradient).transpose(0, 1)
            for column, error in enumerate(self._codes.errors(unit)):
                products = torch.bmm(lines, self._parts.lines(unit, error)[:, :, None])[:, :, 0].T
                scores = self._parts.sums(unit, products).double()
                values[:, :, column] += weights[:, None] * scores.square()
        return values

    def _replayed(self, unit: int, uses: Sequence[Use], weight: torch.Tensor) -> torch.Tensor:
        """The same of rows, from y = dW x of every format: no G is made."""
        assert self._codes is not None
        values = self._nothing(unit, weight)
        for column, error in enumerate(self._codes.errors(unit)):
            outputs = [use.inputs.float() @ error.T for use in uses]
            for k, weights in enumerate(weight):
                rows = _summed((use.gradients[k].float() * y).sum(1) for use, y in zip(uses, outputs, strict=True))
                scores = self._parts.sums(unit, rows).double()
                values[:, :, column] += weights[:, None] * scores.square()
        return values

    def _nothing(self, unit: int, weight: torch.Tensor) -> torch.Tensor:
        rows, formats = self._parts.of(unit), len(self._parts.task.formats)
        return torch.zeros(weight.shape[1], rows.stop - rows.start, formats, dtype=torch.float64, device=computing())


def _summed(parts: Iterator[torch.Tensor]) -> torch.Tensor:
    """One tensor after another added to the first."""
    total = next(parts)
    for part in parts:
        total = total + part
    return total
