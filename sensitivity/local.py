"""Metrics that look at one layer at a time: a value of its inputs, output gradients and errors, summed over calls.

Each such metric is a function `cells`; the passes, the moments, the fallback for unreached units are shared. Units
that are not used through linears (see capture.py) have no positions to look at: they count as unreached and say so.
Models that do not fit in memory are read block by block (local_streamed.py).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from bitwright.core.errors import InvalidCalibration, Unsupported
from bitwright.core.inventory import Inventory
from sensitivity import local_streamed
from sensitivity.base import Scores, ScoringTask
from sensitivity.capture import Call, Listener, per_item
from sensitivity.data import Data
from sensitivity.directional import differentiate
from sensitivity.fallback import fill_unmeasured
from sensitivity.layers import Cells, Layer, Measured, Passes, Ran, check_finite
from sensitivity.moments import Moments
from sensitivity.on_device import back, computing
from sensitivity.partial import FORGETFUL
from sensitivity.passes import Plan, count_batches, ordered_batches, plan_passes
from sensitivity.runner import Runner, load_runner
from sensitivity.share import Values, add_up
from sensitivity.stream_options import streams


@dataclass(frozen=True, eq=False)
class _Visit:
    """One batch: the items' numbers, every use of a planned layer in it, and what an item's loss is divided by."""

    rows: NDArray[np.int64]
    layers: list[tuple[int, Layer]]
    norm: int


class _Stack:
    """Errors of one unit, made when they are looked at."""

    def __init__(self, task: ScoringTask, unit: int) -> None:
        self._task, self._unit = task, unit

    @cached_property
    def _errors(self) -> torch.Tensor:
        return self._task.deltas.on_device(self._unit)

    def __len__(self) -> int:
        return self._task.shape[1]

    def __getitem__(self, column: int) -> torch.Tensor:
        return self._errors[column]


class LayerPasses:
    """Passes over the scoring data that show every use of a planned unit; the model is opened once for all of them.

    Raises NotFinite, InvalidCalibration, Unsupported.
    """

    def __init__(self, task: ScoringTask, passes: Passes) -> None:
        data = _required(task)
        self._task, self._passes, self._blocks = task, passes, streams(task)
        if self._blocks:
            self._opened = local_streamed.opened(task)
            self.ran = self._opened.ran
        else:
            self._runner, self._plan = _prepared(task, data)
            self.ran = Ran(self._runner.head, self._runner.warnings, self._plan.directions)

    def visit(self, units: Collection[int], visit: Callable[[int, Layer], None], close: Callable[[int], None]) -> Ran:
        """One pass. close: told the number of every unit that was shown, once no more of its uses will come: when all
        is run, or, for models that are read block by block, when its block is."""
        wanted = set(units)
        if self._blocks:
            return local_streamed.visit(self._opened, self._passes, wanted, visit, close)
        positions = norm = 0
        shown: set[int] = set()
        for seen in _visits(self._task, self._passes, self._runner, self._plan, None):
            for unit, layer in seen.layers:
                if unit in wanted:
                    visit(unit, layer)
                    shown.add(unit)
            positions += max((layer.inputs.shape[0] * layer.inputs.shape[1] for _, layer in seen.layers), default=0)
            norm += len(seen.rows) * seen.norm
        for unit in sorted(shown):
            close(unit)
        return replace(self.ran, positions=positions, norm=norm)


def _required(task: ScoringTask) -> Data:
    if task.data is None:
        raise InvalidCalibration(
            "this metric needs calibration data", hint="leave --calibration out for the bundled one"
        )
    return task.data


def _prepared(task: ScoringTask, data: Data) -> tuple[Runner, Plan]:
    runner = load_runner(task.source, task.inventory)
    plan = plan_passes(runner, data, len(task.formats), task.samples, task.seed)
    check_linears(runner, plan)
    return runner, plan


def _visits(task: ScoringTask, passes: Passes, runner: Runner, plan: Plan, run: range | None) -> Iterator[_Visit]:
    for rows, batch in ordered_batches(_required(task), plan, task.progress, run):
        with plan.listener.listen() as calls:
            output = runner.output(batch)
        found, weights = gradients(runner, plan, calls, output, rows, task, passes)
        seen = [
            pair
            for number, call in enumerate(calls)
            for pair in layers(call, [g[number] for g in found], weights, len(rows), task)
        ]
        yield _Visit(rows, seen, runner.head.norm(output))


def measure_layers(
    task: ScoringTask, passes: Passes, cells: Cells, wanted: Collection[int] | None = None
) -> Measured:  # fmt: skip
    """Means over items of `cells` for every unit; wanted: of these alone, zero for others. Raises NotFinite,
    InvalidCalibration, Unsupported."""
    data = _required(task)
    if streams(task):
        return local_streamed.measure(task, passes, cells, wanted)
    units, columns = task.shape[0], task.shape[1] * passes.columns_a_format
    moments = Moments(units, columns, task.partial)
    runner, plan = _prepared(task, data)

    def compute(run: range) -> Iterator[Values]:
        for visit in _visits(task, passes, runner, plan, run):
            values = torch.zeros(len(visit.rows), units, columns, dtype=torch.float64, device=computing())
            for unit, layer in visit.layers:
                if wanted is None or unit in wanted:
                    values[:, unit] += cells(layer) / visit.norm
            check_finite(values)
            cells_of = back(values)
            yield Values(cells_of, (cells_of != 0).any(axis=(0, 2)), visit.rows, plan.directions)

    add_up(moments, task.share, count_batches(data, plan), plan.batch_items, compute)
    return Measured(Ran(runner.head, runner.warnings, plan.directions), moments)


def relative_output_errors(task: ScoringTask, wanted: Collection[int] | None = None) -> NDArray[np.float64]:
    """(units, formats) squared error of each layer's own output over its squared length; 0 where no token came.

    wanted: units to look at; the others are 0.
    """

    def cells(layer: Layer) -> torch.Tensor:
        columns = [layer.output_error(c).square().sum((1, 2)).double() for c in range(len(layer.errors))]
        whole = layer.output.square().sum((1, 2)).double()
        return torch.stack([*columns, *[whole] * len(columns)], dim=-1)

    passes = Passes("none", columns_a_format=2)
    mean = measure_layers(replace(task, partial=FORGETFUL), passes, cells, wanted).moments.mean()
    changed, whole = mean[:, : task.shape[1]], mean[:, task.shape[1] :]
    return np.divide(changed, whole, out=np.zeros_like(changed), where=whole > 0)


def check_linears(runner: Runner, plan: Plan) -> None:
    """Raises Unsupported when no planned weight is used by a linear layer (GPT-2's Conv1D, for one)."""
    if len(plan.listener.others) == len(runner.inventory.units):
        raise no_linears(runner.inventory)


def no_linears(inventory: Inventory) -> Unsupported:
    """What a metric of linear layers says to a model that has none among its planned weights."""
    return Unsupported(
        "this metric looks at linear layers, and this model uses its planned weights in other ways",
        expected="weights used through torch's linear",
        got=inventory.architecture,
        hint="use --metric fisher, which works for any use of a weight",
    )


def gradients(
    runner: Runner, plan: Plan, calls: list[Call], output: torch.Tensor, rows: NDArray[np.int64], task: ScoringTask,
    passes: Passes,
) -> tuple[list[list[torch.Tensor | None]], torch.Tensor]:  # fmt: skip
    """Gradients of every call's output along every direction, and float64 (directions, items) weights."""
    if passes.directions == "none" or task.data is None:
        return [], torch.zeros(0, len(rows), dtype=torch.float64)
    head = runner.head
    if passes.directions == "observed":
        chosen = [head.observed(output, task.data.take(rows), rows, task.seed)]
    else:
        chosen = list(head.directions(output, rows, plan.samples, task.seed))
    found = [
        differentiate(runner, Listener({}, {}), calls, output, one.gradient, keep=number < len(chosen) - 1)[0]
        for number, one in enumerate(chosen)
    ]
    return found, torch.stack([one.weight for one in chosen])


def layers(
    call: Call, grads: list[torch.Tensor | None], weights: torch.Tensor, items: int, task: ScoringTask
) -> list[tuple[int, Layer]]:
    """The planned units of a call, each with its part of the output gradients."""
    shaped = per_item(call, items)
    if shaped is None:
        return []
    inputs, shape = shaped
    output = call.output.detach().reshape(shape)
    known = [output.new_zeros(shape) if g is None else g.reshape(shape) for g in grads]
    return [
        (
            part.unit,
            Layer(
                inputs,
                _Stack(task, part.unit),
                tuple(g[..., part.start : part.stop] for g in known),
                weights,
                output[..., part.start : part.stop],
            ),
        )
        for part in call.parts
    ]


def finished(
    task: ScoringTask, measured: Measured, loss: NDArray[np.float64], stderr: NDArray[np.float64], loss_unit: str
) -> Scores:
    """Scores with unreached units filled and everything counted."""
    exact = task.deltas.energies().max(axis=1, initial=0.0) == 0
    loss, stderr, unmeasured = fill_unmeasured(task, loss, stderr, measured.moments.reached | exact)
    items, data = measured.moments.items, task.data
    return Scores(
        loss=loss, stderr=stderr, loss_unit=loss_unit, tokens=0 if data is None else data.tokens,
        samples=items * measured.ran.directions, unmeasured=unmeasured, warnings=measured.ran.warnings,
        parameters={
            "items": items, "directions_an_item": measured.ran.directions,
            **({"streamed": True} if measured.ran.streamed else {}),
        },
    )  # fmt: skip


def simple_scores(task: ScoringTask, passes: Passes, cells: Cells, loss_unit: str | None) -> Scores:
    """A metric whose loss is the mean of `cells`; loss_unit None: the head's."""
    measured = measure_layers(task, passes, cells)
    moments = measured.moments
    unit = measured.ran.head.loss_unit if loss_unit is None else loss_unit
    return finished(task, measured, moments.mean(), moments.stderr(moments.items), unit)
