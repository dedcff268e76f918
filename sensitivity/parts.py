"""Losses of parts of units (rows, columns, blocks of them, groups), as `fisher` and `weight-mse` give them.

Rows are the finer unit that pays most: one width an output row gave 0.66-0.69 of the tensor plan's KL at equal true
bytes (research/09). The passes are those of `fisher`; only the sums are cut finer:

    score[p, f, s, k] = sum over the weights w of part p of G_w dW_f,w,   G = sum over positions of d_t x_t'
    loss[p, f]        = 1/2 mean over s of sum over k of weight_k score^2 / positions

The sum over the parts of a unit is not the unit's loss: that also has the covariance between parts, which additive
plans leave out. Cost beyond `fisher`: G of every item and direction, and one product with all dW of a layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from bitwright.core.errors import InvalidCalibration, NotFinite, Unsupported
from bitwright.core.mixed_format import Cut, cut
from sensitivity.base import Losses, Scores, ScoringTask
from sensitivity.capture import Call, per_item
from sensitivity.data import Data
from sensitivity.directional import differentiate
from sensitivity.fallback import fill_unmeasured_parts
from sensitivity.moments import Moments
from sensitivity.on_device import all_finite, back, here
from sensitivity.passes import Plan, count_batches, ordered_batches, plan_passes, trainable
from sensitivity.runner import Runner
from sensitivity.share import Values, add_up
from sensitivity.stream_options import dtype_of
from sensitivity.whole import whole_runner

#: Numbers of the gradients that are held at once.
GRADIENT_CELLS = 1 << 26


class _Parts:
    """How every unit of a task is cut, and where its parts stand in the table."""

    def __init__(self, task: ScoringTask) -> None:
        self.task = task
        self.shapes = [unit.shape for unit in task.inventory.units]
        self.cuts = [cut(task.granularity, shape, task.formats) for shape in self.shapes]
        self.starts = np.cumsum([0, *(found.parts for found in self.cuts)])
        self.units = np.repeat(np.arange(len(self.cuts)), [found.parts for found in self.cuts])

    @property
    def total(self) -> int:
        return int(self.starts[-1])

    def of(self, unit: int) -> slice:
        return slice(int(self.starts[unit]), int(self.starts[unit + 1]))

    def lines(self, unit: int, matrices: NDArray[np.float32]) -> torch.Tensor:
        """(n, out, in) -> (lines, n, length)."""
        lines = self.cuts[unit].to_lines(matrices, self.shapes[unit])
        return here(lines.swapaxes(0, 1))

    def energies(self) -> Losses:
        """float64 (parts, formats): squared errors."""
        found = np.zeros((self.total, len(self.task.formats)))
        for unit in range(len(self.cuts)):
            errors = self.lines(unit, self.task.deltas.stack(unit)).double()
            found[self.of(unit)] = back(part_sums(errors.square().sum(-1), self.cuts[unit]))
            self.task.progress("quantize", (unit + 1) / len(self.cuts), self.task.inventory.units[unit].name)
        return found


def part_sums(lines: torch.Tensor, found: Cut) -> torch.Tensor:
    """Sums over the lines of each part: (lines, ...) -> (parts, ...)."""
    if found.block == 1:
        return lines
    index = here(np.repeat(np.arange(found.parts), found.part_lines()))
    return lines.new_zeros(found.parts, *lines.shape[1:]).index_add_(0, index, lines)


def squared_error(task: ScoringTask, loss_unit: str) -> Scores:
    """`weight-mse` of parts."""
    loss = _Parts(task).energies()
    return Scores(loss=loss, stderr=np.zeros_like(loss), loss_unit=loss_unit)


def fisher(task: ScoringTask) -> Scores:
    """`fisher` of parts. Raises InvalidCalibration, NotFinite, Unsupported, as `fisher` does."""
    if task.data is None:
        raise InvalidCalibration(
            "this metric needs calibration data", hint="leave --calibration out for the bundled one"
        )
    parts = _Parts(task)
    energy = parts.energies()
    if task.options.get("stream") or dtype_of(task) != torch.float32:
        raise Unsupported(
            "fisher of parts of tensors needs the whole model in memory, in float32", got="stream or dtype",
            expected="scoring by tensor, or salience, gptq-loss or output-kl by parts",
        )  # fmt: skip
    runner = whole_runner(task, "fisher of parts")
    plan = plan_passes(runner, task.data, len(task.formats), task.samples, task.seed)
    moments = Moments(parts.total, len(task.formats), task.partial)
    data = task.data

    def compute(run: range) -> Iterator[Values]:
        with trainable(runner, {place.parameter for place in plan.listener.others.values()}):
            for rows, batch in ordered_batches(data, plan, task.progress, run):
                cells = back(_batch(parts, runner, plan, rows, batch))
                yield Values(cells, (cells != 0).any(axis=(0, 2)), rows, plan.directions)

    add_up(moments, task.share, count_batches(data, plan), plan.batch_items, compute)
    samples = moments.items * plan.directions
    touched = np.zeros(len(parts.cuts), np.bool_)
    np.logical_or.at(touched, parts.units, moments.reached | (energy.max(axis=1, initial=0.0) == 0))
    loss, stderr, unmeasured = fill_unmeasured_parts(
        task, energy, parts.units, moments.mean(), moments.stderr(samples), touched
    )
    return Scores(
        loss=loss, stderr=stderr, loss_unit=runner.head.loss_unit, tokens=task.data.tokens, samples=samples,
        parameters={"samples_an_item": plan.samples, "directions_an_item": plan.directions, "items": moments.items},
        unmeasured=unmeasured, warnings=runner.warnings,
    )  # fmt: skip


def _batch(parts: _Parts, runner: Runner, plan: Plan, rows: NDArray[np.int64], data: Data) -> torch.Tensor:
    """float64 (items, parts, formats): half the weighted sum of squared scores of each item, over its positions."""
    with plan.listener.listen() as calls:
        output = runner.output(data)
    values = torch.zeros(len(rows), parts.total, len(parts.task.formats), dtype=torch.float64, device=output.device)
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
    parts: _Parts, unit: int, uses: Sequence[tuple[Call, torch.Tensor, int, int]], items: int
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


def _product(parts: _Parts, unit: int, gradient: torch.Tensor) -> torch.Tensor:
    """float64 (items, parts, formats) from gradients (items, out, in)."""
    lines = parts.lines(unit, back(gradient))
    errors = parts.lines(unit, parts.task.deltas.stack(unit))
    products = torch.bmm(lines, errors.transpose(1, 2))  # (lines, items, formats)
    return part_sums(products, parts.cuts[unit]).transpose(0, 1).double()
