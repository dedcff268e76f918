"""Metrics that look at one layer at a time: a value of its inputs, output gradients and errors, summed over calls.

Each such metric is a function `cells`; the passes, the moments, the fallback for unreached units are shared. Units
that are not used through linears (see capture.py) have no positions to look at: they count as unreached and say so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import torch
from numpy.typing import NDArray

from bitwright.core.errors import InvalidCalibration, NotFinite, Unsupported
from sensitivity.base import Scores, ScoringTask
from sensitivity.capture import Call, Listener, per_item
from sensitivity.data import Data
from sensitivity.directional import differentiate
from sensitivity.fallback import fill_unmeasured
from sensitivity.moments import Moments
from sensitivity.partial import FORGETFUL, State
from sensitivity.passes import Plan, count_batches, ordered_batches, plan_passes
from sensitivity.runner import Runner, load_runner
from sensitivity.share import Values, add_up


@dataclass(frozen=True, eq=False)
class Layer:
    """One planned unit in one use of its layer. inputs: (items, positions, in).

    gradients: one (items, positions, out) a direction; weights: float64 (directions, items). output: (items, positions,
    out) of the unquantized layer, its bias included.
    """

    inputs: torch.Tensor
    stack: Callable[[], NDArray[np.float32]]
    gradients: tuple[torch.Tensor, ...]
    weights: torch.Tensor
    output: torch.Tensor

    @cached_property
    def errors(self) -> torch.Tensor:
        """(formats, out, in), made when they are looked at."""
        return torch.from_numpy(self.stack())

    def output_error(self, column: int) -> torch.Tensor:
        """(items, positions, out): what quantizing in format `column` does to the layer's own output."""
        return self.inputs @ self.errors[column].T


#: (layer) -> float64 (items, columns)
Cells = Callable[[Layer], torch.Tensor]


@dataclass(frozen=True)
class Passes:
    """directions: `drawn` from the model's own output, `observed` (labels of the data), or `none` (forward only)."""

    directions: str
    columns_a_format: int = 1


@dataclass(frozen=True, eq=False)
class Measured:
    runner: Runner
    plan: Plan
    moments: Moments


@dataclass(frozen=True, eq=False)
class Visit:
    """One batch: the items' numbers, every use of a planned layer in it, and what an item's loss is divided by."""

    rows: NDArray[np.int64]
    layers: list[tuple[int, Layer]]
    norm: int


def visit_layers(task: ScoringTask, passes: Passes, visit: Callable[[Visit], None]) -> tuple[Runner, Plan]:
    """Runs the scoring data and shows every batch's layers to `visit`.

    Raises NotFinite, InvalidCalibration, Unsupported.
    """
    runner, plan, _ = prepared(task)
    for seen in visits(task, passes, runner, plan):
        visit(seen)
    return runner, plan


def gather_layers(task: ScoringTask, passes: Passes, say: Callable[[Visit], State]) -> tuple[Runner, Iterator[State]]:
    """What `say` makes of every batch's layers, batch after batch, whoever computes it. Raises as `visit_layers`."""
    runner, plan, data = prepared(task)

    def compute(run: range) -> Iterator[State]:
        return map(say, visits(task, passes, runner, plan, run))

    return runner, task.share.gather(range(count_batches(data, plan)), compute)


def prepared(task: ScoringTask) -> tuple[Runner, Plan, Data]:
    """The model and how passes over the scoring data are made. Raises as `visit_layers`."""
    if task.data is None:
        raise InvalidCalibration(
            "this metric needs calibration data", hint="leave --calibration out for the bundled one"
        )
    runner = load_runner(task.source, task.inventory)
    plan = plan_passes(runner, task.data, len(task.formats), task.samples, task.seed)
    check_linears(runner, plan)
    return runner, plan, task.data


def visits(task: ScoringTask, passes: Passes, runner: Runner, plan: Plan, run: range | None = None) -> Iterator[Visit]:
    """Every batch with its layers. run: numbers of the batches; None: all."""
    assert task.data is not None
    for rows, batch in ordered_batches(task.data, plan, task.progress, run):
        with plan.listener.listen() as calls:
            output = runner.output(batch)
        found, weights = gradients(runner, plan, calls, output, rows, task, passes)
        seen = [
            pair
            for number, call in enumerate(calls)
            for pair in layers(call, [g[number] for g in found], weights, len(rows), task)
        ]
        yield Visit(rows, seen, runner.head.norm(output))


def measure_layers(task: ScoringTask, passes: Passes, cells: Cells) -> Measured:
    """Means over items of `cells` for every unit. Raises NotFinite, InvalidCalibration, Unsupported."""
    units, columns = task.shape[0], task.shape[1] * passes.columns_a_format
    moments = Moments(units, columns, task.partial)
    runner, plan, data = prepared(task)

    def compute(run: range) -> Iterator[Values]:
        for visit in visits(task, passes, runner, plan, run):
            values = torch.zeros(len(visit.rows), units, columns, dtype=torch.float64)
            for unit, layer in visit.layers:
                values[:, unit] += cells(layer) / visit.norm
            if not bool(torch.isfinite(values).all()):
                raise NotFinite("scoring gave NaN or infinity", hint="the model overflows on this calibration data")
            yield Values(values.numpy(), (values != 0).any(0).any(1).numpy(), visit.rows, plan.directions)

    add_up(moments, task.share, count_batches(data, plan), plan.batch_items, compute)
    return Measured(runner, plan, moments)


def relative_output_errors(task: ScoringTask) -> NDArray[np.float64]:
    """(units, formats) squared error of each layer's own output over its squared length; 0 where no token came."""

    def cells(layer: Layer) -> torch.Tensor:
        columns = [layer.output_error(c).square().sum((1, 2)).double() for c in range(len(layer.errors))]
        whole = layer.output.square().sum((1, 2)).double()
        return torch.stack([*columns, *[whole] * len(columns)], dim=-1)

    mean = measure_layers(replace(task, partial=FORGETFUL), Passes("none", columns_a_format=2), cells).moments.mean()
    changed, whole = mean[:, : task.shape[1]], mean[:, task.shape[1] :]
    return np.divide(changed, whole, out=np.zeros_like(changed), where=whole > 0)


def check_linears(runner: Runner, plan: Plan) -> None:
    """Raises Unsupported when no planned weight is used by a linear layer (GPT-2's Conv1D, for one)."""
    if len(plan.listener.others) == len(runner.inventory.units):
        raise no_linears(runner)


def no_linears(runner: Runner) -> Unsupported:
    """What a metric of linear layers says to a model that has none among its planned weights."""
    return Unsupported(
        "this metric looks at linear layers, and this model uses its planned weights in other ways",
        expected="weights used through torch's linear",
        got=runner.inventory.architecture,
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
    known = [torch.zeros(shape) if g is None else g.reshape(shape) for g in grads]
    return [
        (
            part.unit,
            Layer(
                inputs,
                partial(task.deltas.stack, part.unit),
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
        samples=items * measured.plan.directions, unmeasured=unmeasured, warnings=measured.runner.warnings,
        parameters={"items": items, "directions_an_item": measured.plan.directions},
    )  # fmt: skip


def simple_scores(task: ScoringTask, passes: Passes, cells: Cells, loss_unit: str | None) -> Scores:
    """A metric whose loss is the mean of `cells`; loss_unit None: the head's."""
    measured = measure_layers(task, passes, cells)
    moments = measured.moments
    unit = measured.runner.head.loss_unit if loss_unit is None else loss_unit
    return finished(task, measured, moments.mean(), moments.stderr(moments.items), unit)
