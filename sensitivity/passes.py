"""Forward and backward passes over calibration data, a batch at a time, as gradient metrics share them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from bitwright.core.errors import InvalidCalibration
from sensitivity.base import Progress
from sensitivity.capture import Call, Listener, make_listener, per_item
from sensitivity.data import Data
from sensitivity.deltas import Deltas
from sensitivity.directional import DirectionalScores, differentiate
from sensitivity.runner import Runner
from sensitivity.spans import WHOLE, Spans, default_samples, laid_out

#: Captured activations of one batch; the batch size follows from it.
BATCH_BYTES = 192 << 20
#: More items at once gain nothing on a CPU.
BATCH_ITEMS = 64
#: How far a captured gradient may lie from autograd's, relative, before autograd takes over (float32 rounding: 1e-5).
TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class Batch:
    """rows: the items' numbers in the data. scores: signed scores (directions x spans, items, units, formats), float64.

    weight: (directions x spans, items); the item's loss is 1/2 sum of weight x score^2 / norm. output: the head's.
    """

    rows: NDArray[np.int64]
    scores: torch.Tensor
    weight: torch.Tensor
    norm: int
    output: torch.Tensor


@dataclass(frozen=True, eq=False)
class Plan:
    """How the passes are made: directions an item, spans, batch size, and which units autograd must differentiate."""

    listener: Listener
    samples: int
    directions: int
    batch_items: int
    spans: Spans = WHOLE

    @property
    def scores_an_item(self) -> int:
        return self.directions * self.spans.count


@contextmanager
def trainable(runner: Runner, names: set[str]) -> Iterator[None]:
    parameters = runner.parameters
    try:
        for name in names:
            parameters[name].requires_grad_(True)
        yield
    finally:
        for name in names:
            parameters[name].requires_grad_(False)


def plan_passes(
    runner: Runner, data: Data, formats: int, samples: int | None, seed: int, wanted: Spans | None = None
) -> Plan:
    """Runs the longest item once, with all gradients, and compares the captured ones with autograd's.

    wanted: for those who score span by span, how; whole sequences where the model does not allow it. None: for those
    who look at the calls as they are, which hold the items of a batch apart only if every layer does.
    """
    if data.items == 0:
        raise InvalidCalibration("the calibration data is empty", hint="give a longer --calibration text")
    drawn = runner.head.default_samples if samples is None else samples
    listener = make_listener(runner)
    row = np.array([int(_lengths(data).argmax())], np.int64)
    names = {place.parameter for place in runner.slices.values()}
    with trainable(runner, names):
        with listener.listen() as calls:
            output = runner.output(data.take(row))
        direction = next(runner.head.directions(output, row, drawn, seed))
        everything = Listener({}, {n: runner.slices[u.name] for n, u in enumerate(runner.inventory.units)})
        captured, truth = differentiate(runner, everything, calls, output, direction.gradient, keep=False)
    others = _wrongly_captured(calls, captured, truth)
    spans, apart = _kept_apart(runner, calls, _positions(data), wanted)
    spans, apart = (WHOLE, False) if others else (spans, apart)
    samples = default_samples(runner.head, data, spans) if samples is None else samples
    directions = runner.head.count(output, samples)
    size = _batch_items(calls, formats, directions) if apart else 1
    final = Listener(listener.layers, {n: runner.slices[runner.inventory.units[n].name] for n in sorted(others)})
    return Plan(final, samples, directions, size, spans)


def _kept_apart(runner: Runner, calls: list[Call], positions: int, wanted: Spans | None) -> tuple[Spans, bool]:
    """The spans that the calls of one item allow, and whether its calls would be told from another item's."""
    # Layers that see items flattened into one list of positions (OPT's MLP, window attention) cannot tell them apart.
    flattened = any(call.inputs.ndim < 2 or call.inputs.shape[0] != 1 for call in calls)
    if wanted is None:
        return WHOLE, not flattened and all(unit.expert is None for unit in runner.inventory.units)
    cut = all(laid_out(call, 1, positions, wanted) is not None for call in calls)
    told = all(call.tokens is not None and call.of == positions for call in calls if call.inputs.ndim < 3)
    batched = all(call.inputs.ndim < 3 or call.inputs.shape[0] == 1 for call in calls)
    return wanted if cut else WHOLE, told and batched


def _positions(data: Data) -> int:
    """Positions of the items, 0 for those without."""
    return int(data.inputs["input_ids"].shape[1]) if "input_ids" in data.inputs else 0


def _wrongly_captured(
    calls: list[Call], captured: list[torch.Tensor | None], truth: dict[int, torch.Tensor]
) -> set[int]:
    """Units whose captured gradient is not autograd's: used outside linears, or tied to something that is."""
    sums: dict[int, torch.Tensor] = {}
    for call, grad in zip(calls, captured, strict=True):
        shaped = per_item(call, 1)
        if grad is None or shaped is None:
            continue
        inputs, shape = shaped
        full = grad.reshape(shape)[0].T @ inputs[0]
        for part in call.parts:
            sums[part.unit] = sums.get(part.unit, full.new_zeros(())) + full[part.start : part.stop]
    wrong = set()
    for unit, exact in truth.items():
        mine = sums.get(unit, exact.new_zeros(()))
        if float((exact - mine).norm()) > TOLERANCE * float(exact.norm()):
            wrong.add(unit)
    return wrong


def _lengths(data: Data) -> NDArray[np.int64]:
    mask = data.inputs.get("attention_mask")
    return np.ones(data.items, np.int64) if mask is None else mask.sum(axis=1).astype(np.int64)


def _batch_items(calls: list[Call], formats: int, directions: int) -> int:
    """Items whose activations, output gradients and replayed outputs fit into BATCH_BYTES."""
    floats = sum(c.inputs.numel() + (2 + (formats if directions > formats else 0)) * c.output.numel() for c in calls)
    return max(1, min(BATCH_ITEMS, BATCH_BYTES // (4 * max(1, floats))))


def by_length(data: Data) -> NDArray[np.int64]:
    """Rows from the shortest item to the longest: the order in which every pass takes them."""
    return np.argsort(_lengths(data), kind="stable").astype(np.int64)


def count_batches(data: Data, plan: Plan) -> int:
    """Batches of a pass over the data."""
    return -(-data.items // plan.batch_items)


def ordered_batches(
    data: Data, plan: Plan, progress: Progress, run: range | None = None
) -> Iterator[tuple[NDArray[np.int64], Data]]:
    """(rows, items) from the shortest to the longest, padding trimmed. run: numbers of the batches; None: all."""
    order = by_length(data)
    for number in run if run is not None else range(count_batches(data, plan)):
        rows = order[number * plan.batch_items : (number + 1) * plan.batch_items]
        yield rows, data.take(rows).trimmed()
        done = number * plan.batch_items + len(rows)
        progress("score", done / len(order), f"{done} of {len(order)} items")


def batches(
    runner: Runner, data: Data, deltas: Deltas, plan: Plan, seed: int, progress: Progress, run: range | None = None
) -> Iterator[Batch]:
    """Signed scores of every item along every direction. run: numbers of the batches; None: all.

    Raises NotFinite, Unsupported, OutOfResources.
    """
    names = {place.parameter for place in plan.listener.others.values()}
    with trainable(runner, names):
        for rows, batch in ordered_batches(data, plan, progress, run):
            yield _one_batch(runner, batch, deltas, plan, rows, seed)


def _one_batch(runner: Runner, data: Data, deltas: Deltas, plan: Plan, rows: NDArray[np.int64], seed: int) -> Batch:
    with plan.listener.listen() as calls:
        output = runner.output(data)
    scorer = DirectionalScores(
        runner, plan.listener, deltas, calls, len(rows), _positions(data), plan.directions, plan.spans
    )
    found, weights = [], []
    for number, direction in enumerate(runner.head.directions(output, rows, plan.samples, seed)):
        found.append(scorer.along(output, direction.gradient, last=number == plan.directions - 1))
        weights.append(direction.weight.expand(plan.spans.count, -1))
    return Batch(rows, torch.cat(found), torch.cat(weights), runner.head.norm(output), output.detach())
