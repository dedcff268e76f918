"""Losses of parts of units (rows, columns, blocks of them, groups), as `fisher` and `weight-mse` give them.

Rows are the finer unit that pays most: one width an output row gave 0.66-0.69 of the tensor plan's KL at equal true
bytes (research/09). The passes are those of `fisher`; only the sums are cut finer:

    score[p, f, s, k] = sum over the weights w of part p of G_w dW_f,w,   G = sum over positions of d_t x_t'
    loss[p, f]        = 1/2 mean over s of sum over k of weight_k score^2 / positions

The sum over the parts of a unit is not the unit's loss: that also has the covariance between parts, which additive
plans leave out. Cost beyond `fisher`: G of every item and direction, and one product with all dW of a layer. Models
that do not fit in memory are read block by block (parts_streamed.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from bitwright.core.errors import InvalidInput, NotFinite, Unsupported
from sensitivity.base import Losses, Scores, ScoringTask
from sensitivity.capture import Call, per_item
from sensitivity.data import Data
from sensitivity.directional import differentiate
from sensitivity.fallback import fill_unmeasured_parts, heard
from sensitivity.fisher_table import required
from sensitivity.moments import Moments
from sensitivity.on_device import all_finite, back, here
from sensitivity.part_cuts import Parts
from sensitivity.passes import Plan, count_batches, ordered_batches, plan_passes, trainable
from sensitivity.runner import Runner, load_runner
from sensitivity.share import Totals, add_up

#: Numbers of the gradients that are held at once.
GRADIENT_CELLS = 1 << 26
#: Options of `fisher` that say something of whole tensors.
WHOLE_ONLY = ("relative_error", "keep_samples", "span")


def squared_error(task: ScoringTask, loss_unit: str) -> Scores:
    """`weight-mse` of parts."""
    loss = Parts(task).energies()
    return Scores(loss=loss, stderr=np.zeros_like(loss), loss_unit=loss_unit)


def refuse_options_of_tensors(task: ScoringTask) -> None:
    """Raises InvalidInput for an option that parts would not heed."""
    asked = [name for name in WHOLE_ONLY if name in task.options]
    if asked:
        raise InvalidInput(
            f"the option {asked[0]} is one of whole tensors", expected="granularity tensor or expert",
            got=f"granularity {task.granularity}", hint="leave it out, or score by tensor",
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Ran:
    """What was run: samples and directions an item, the unit of the losses, and what the model's loading warned of."""

    samples: int
    directions: int
    loss_unit: str
    warnings: tuple[str, ...] = ()
    streamed: bool = False


def fisher(task: ScoringTask) -> Scores:
    """`fisher` of parts. Raises InvalidCalibration, InvalidInput, NotFinite, Unsupported, as `fisher` does."""
    refuse_options_of_tensors(task)
    data, parts = required(task), Parts(task)
    energy = parts.energies()
    runner = load_runner(task.source, task.inventory)
    plan = plan_passes(runner, data, len(task.formats), task.samples, task.seed)
    moments = Moments(*parts.shape, task.partial)

    def compute(run: range) -> Iterator[Totals]:
        with trainable(runner, {place.parameter for place in plan.listener.others.values()}):
            for rows, batch in ordered_batches(data, plan, task.progress, run):
                values = _batch(parts, runner, plan, rows, batch)
                sums, squares = back(values.sum(0)), back(values.square().sum(0))
                yield Totals(sums, squares, len(rows), plan.directions)

    add_up(moments, task.share, count_batches(data, plan), plan.batch_items, compute)
    ran = Ran(plan.samples, plan.directions, runner.head.loss_unit, runner.warnings)
    return finished(task, parts, energy, moments, ran)


def finished(task: ScoringTask, parts: Parts, energy: Losses, moments: Moments, ran: Ran) -> Scores:
    """The table of finished sums, in memory or block by block. energy: (parts, formats) squared errors."""
    samples = moments.items * ran.directions
    touched = np.zeros(len(parts.cuts), np.bool_)
    np.logical_or.at(touched, parts.units, moments.reached | (energy.max(axis=1, initial=0.0) == 0))
    touched &= heard(*(_of_units(parts, cells) for cells in (moments.mean(), energy)))
    loss, stderr, unmeasured = fill_unmeasured_parts(
        task, energy, parts.units, moments.mean(), moments.stderr(samples), touched
    )
    told = {"samples_an_item": ran.samples, "directions_an_item": ran.directions, "items": moments.items}
    return Scores(
        loss=loss, stderr=stderr, loss_unit=ran.loss_unit, tokens=required(task).tokens, samples=samples,
        parameters={**told, "streamed": True} if ran.streamed else told, unmeasured=unmeasured, warnings=ran.warnings,
    )  # fmt: skip


def _of_units(parts: Parts, cells: Losses) -> Losses:
    """(units, formats) sums over each unit's parts."""
    found = np.zeros((len(parts.cuts), cells.shape[1]))
    np.add.at(found, parts.units, cells)
    return found


def _batch(parts: Parts, runner: Runner, plan: Plan, rows: NDArray[np.int64], data: Data) -> torch.Tensor:
    """float64 (items, parts, formats): half the weighted sum of squared scores of each item, over its positions."""
    with plan.listener.listen() as calls:
        output = runner.output(data)
    values = torch.zeros(len(rows), *parts.shape, dtype=torch.float64, device=output.device)
    for number, direction in enumerate(runner.head.directions(output, rows, plan.samples, parts.task.seed)):
        keep = number < plan.directions - 1
        found, others = differentiate(runner, plan.listener, calls, output, direction.gradient, keep=keep)
        gradients: dict[int, list[tuple[Call, torch.Tensor, int, int]]] = {}
        for call, grad in zip(calls, found, strict=True):
            for part in call.parts if grad is not None else ():
                assert grad is not None
                gradients.setdefault(part.unit, []).append((call, grad, part.start, part.stop))
        weight = direction.weight[:, None, None] / (2 * runner.head.norm(output))
        for unit, uses in gradients.items():
            for items, scores in _scores(parts, unit, uses, len(rows)):
                values[items, parts.of(unit)] += weight[items] * scores.square()
        for unit, grad in others.items():
            scores = _product(parts, unit, grad[None])
            values[:, parts.of(unit)] += weight * scores.square()
    if not all_finite(values):
        raise NotFinite("scoring gave NaN or infinity", hint="the model overflows on this calibration data")
    return values


def _scores(
    parts: Parts, unit: int, uses: Sequence[tuple[Call, torch.Tensor, int, int]], items: int
) -> Iterator[tuple[slice, torch.Tensor]]:
    """(items, float64 (items, parts, formats) signed scores), some items at a time."""
    shaped = []
    for call, grad, start, stop in uses:
        known = per_item(call, items)
        if known is None:
            raise Unsupported(
                "a layer mixes the items of a batch", hint="report this model; one item a batch would work"
            )
        shaped.append((known[0], grad.reshape(known[1])[..., start:stop]))
    out, inputs = parts.shapes[unit]
    step = max(1, GRADIENT_CELLS // (out * inputs))
    for first in range(0, items, step):
        some = slice(first, min(first + step, items))
        gradient = sum(torch.bmm(d[some].transpose(1, 2), x[some]) for x, d in shaped)
        assert isinstance(gradient, torch.Tensor)
        yield some, _product(parts, unit, gradient)


def _product(parts: Parts, unit: int, gradient: torch.Tensor) -> torch.Tensor:
    """float64 (items, parts, formats) from gradients (items, out, in)."""
    lines = parts.lines(unit, gradient).transpose(0, 1)
    errors = parts.lines(unit, here(parts.task.deltas.stack(unit))).permute(1, 2, 0)
    products = torch.bmm(lines, errors)  # (lines, items, formats)
    return parts.sums(unit, products.permute(1, 2, 0)).transpose(1, 2).double()
