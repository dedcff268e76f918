"""Metrics that look at one layer at a time (local.py), of a model that is read block by block.

Sums of cells are made group by group of items, as `fisher` is: what is done of them outlives a kill, and any number of
workers makes the same table. Metrics that keep something of every unit until all items were seen (Gram matrices) see
them in one walk instead, and may let go of a block's when it is left; what waits between blocks is on disk then.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from sensitivity.base import ScoringTask
from sensitivity.blocks import BlockModel, open_blocks
from sensitivity.codes import Codes
from sensitivity.data import Data
from sensitivity.fisher_streamed import directions_of
from sensitivity.heads import Direction
from sensitivity.layers import Cells, Layer, Measured, Passes, Ran, check_finite
from sensitivity.moments import Moments
from sensitivity.on_device import back, computing
from sensitivity.passes import by_length
from sensitivity.share import Values, add_up
from sensitivity.stream_options import activation_bytes, dtype_of
from sensitivity.streaming import group_items
from sensitivity.walk import Choose, Use, Walk, walk_rows


class _UnitErrors:
    """Errors of one unit, made when asked."""

    def __init__(self, codes: Codes, unit: int) -> None:
        self._codes, self._unit = codes, unit

    def __len__(self) -> int:
        return len(self._codes.formats)

    def __getitem__(self, column: int) -> torch.Tensor:
        if column >= len(self):
            raise IndexError(column)
        return self._codes.error(self._unit, column)


class _Layers:
    """Makes layers of a walk's uses. see_layer: (rows of the group, unit, layer). left: units of a done block. wanted:
    units that are looked at; None: all."""

    def __init__(
        self, task: ScoringTask, model: BlockModel, see_layer: Callable[[slice, int, Layer], None],
        left: Callable[[int], None] | None = None, wanted: Collection[int] | None = None,
    ) -> None:  # fmt: skip
        self.task, self.model, self.see_layer, self.left, self.wanted = task, model, see_layer, left, wanted
        self.positions: dict[int, int] = {}
        self.shown: set[int] = set()

    def of(self, walk: Walk) -> _Layers:
        self.walk = walk
        self.starts = np.cumsum([0, *map(len, walk.cuts)])
        return self

    def begin(self, block: int) -> None:
        self.codes: Codes | None = Codes(self.task, self.model, block, energies=True, wanted=self.wanted)
        self.shown = set()

    def see(self, number: int, uses: Sequence[Use], batch: Data) -> None:
        assert self.codes is not None
        weights = self.walk.weights.get(number, torch.zeros(0, len(self.walk.cuts[number]), dtype=torch.float64))
        some = slice(int(self.starts[number]), int(self.starts[number + 1]))
        for use in uses:
            positions = use.inputs.shape[0] * use.inputs.shape[1]
            self.positions[number] = max(self.positions.get(number, 0), positions)
            if use.unit not in self.codes.units:
                continue
            gradients = tuple(gradient.float() for gradient in use.gradients)
            errors = _UnitErrors(self.codes, use.unit)
            self.see_layer(
                some, use.unit, Layer(use.inputs.float(), errors, gradients, weights, use.output.float())
            )  # fmt: skip
            self.shown.add(use.unit)

    def end(self, block: int) -> None:
        self.codes = None
        for unit in sorted(self.shown) if self.left is not None else ():
            self.left(unit)  # type: ignore[misc]


@dataclass(frozen=True, eq=False)
class Opened:
    """A model whose blocks are read one at a time; samples: label samples an item."""

    task: ScoringTask
    model: BlockModel
    samples: int
    ran: Ran


def opened(task: ScoringTask) -> Opened:
    """Raises Unsupported, InvalidInput."""
    task.deltas.keep_nothing()
    model = open_blocks(task.source, task.inventory, dtype_of(task))
    samples = model.head.default_samples if task.samples is None else task.samples
    return Opened(task, model, samples, Ran(model.head, (), directions_of(model, samples), streamed=True))


def measure(task: ScoringTask, passes: Passes, cells: Cells, wanted: Collection[int] | None = None) -> Measured:
    """As `local.measure_layers`."""
    assert task.data is not None
    at = opened(task)
    columns, size = task.shape[1] * passes.columns_a_format, group_items(task.data)
    moments, order = Moments(task.shape[0], columns, task.partial), by_length(task.data)
    count = -(-task.data.items // size)

    def compute(run: range) -> Iterator[Values]:
        for number in run:
            rows = order[number * size : (number + 1) * size]
            values = torch.zeros(len(rows), task.shape[0], columns, dtype=torch.float64, device=computing())

            def see(some: slice, unit: int, layer: Layer, values: torch.Tensor = values) -> None:
                values[some, unit] += cells(layer)

            told = (number / count, (number + 1) / count)
            walk = _walk(at, passes, rows, _Layers(task, at.model, see, wanted=wanted), told)
            for batch, start in enumerate(np.cumsum([0, *map(len, walk.cuts)])[:-1].tolist()):
                values[start : start + len(walk.cuts[batch])] /= walk.norms[batch]
            check_finite(values)
            found = back(values)
            yield Values(found, (found != 0).any(axis=(0, 2)), rows, at.ran.directions)

    add_up(moments, task.share, count, size, compute)
    return Measured(at.ran, moments)


def visit(
    at: Opened, passes: Passes, wanted: set[int], show: Callable[[int, Layer], None], close: Callable[[int], None]
) -> Ran:
    """As `local.LayerPasses.visit`: all items in one walk."""
    assert at.task.data is not None

    def see(some: slice, unit: int, layer: Layer) -> None:
        show(unit, layer)

    layers = _Layers(at.task, at.model, see, close, wanted)
    walk = _walk(at, passes, by_length(at.task.data), layers, (0.0, 1.0))
    norm = sum(len(rows) * walk.norms[number] for number, rows in enumerate(walk.cuts))
    return replace(at.ran, positions=sum(layers.positions.values()), norm=norm)


def _walk(
    at: Opened, passes: Passes, rows: NDArray[np.int64], layers: _Layers, told: tuple[float, float]
) -> Walk:  # fmt: skip
    head, seed = at.model.head, at.task.seed

    def observed(output: torch.Tensor, rows: NDArray[np.int64], batch: Data) -> list[Direction]:
        return [head.observed(output, batch, rows, seed)]

    def drawn(output: torch.Tensor, rows: NDArray[np.int64], batch: Data) -> list[Direction]:
        return list(head.directions(output, rows, at.samples, seed))

    choose: dict[str, Choose | None] = {"none": None, "observed": observed, "drawn": drawn}
    chosen = choose[passes.directions]
    return walk_rows(at.task, at.model, rows, chosen, layers.of, told, activation_bytes(at.task))
