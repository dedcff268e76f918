"""`fisher` scores of a model that does not fit in memory, from walks through its blocks (walk.py).

What is held beside a walk is the codes of a block's units in every format (a byte a weight and format, up to twice the
block in float32; beyond, units are quantized again for every batch) and the error of one unit in one format.
GROUP_TOKENS are taken through the whole model at a time: what is done of them outlives a kill. The numbers are those of
sensitivity/fisher.py up to float32 rounding: draws depend on (seed, item) alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from bitwright.core.errors import NotFinite, Unsupported
from sensitivity.base import ScoringTask
from sensitivity.blocks import BlockModel
from sensitivity.codes import Codes
from sensitivity.data import Data
from sensitivity.directional import replays
from sensitivity.heads import Direction
from sensitivity.on_device import all_finite, back, computing
from sensitivity.share import Values
from sensitivity.spans import WHOLE, Spans, laid_out
from sensitivity.stream import ACTIVATION_BYTES
from sensitivity.walk import Use, Walk, walk_rows

#: Tokens (items of image models) that go through the whole model at a time.
GROUP_TOKENS = 4096
#: Numbers of the gradients of a unit that are held at once, at most; in bytes never more than a part of what
#: activations may take (an item of a wide layer is as large as the layer).
GRADIENT_CELLS, GRADIENT_PART = 1 << 24, 4


def group_items(data: Data) -> int:
    """Items of a group: about GROUP_TOKENS."""
    return max(1, round(GROUP_TOKENS * data.items / max(1, data.tokens)))


def group_values(
    task: ScoringTask,
    model: BlockModel,
    rows: NDArray[np.int64],
    samples: int,
    told: tuple[float, float],
    keeping: bool = False,
    activation_bytes: int = ACTIVATION_BYTES,
    spans: Spans = WHOLE,
) -> Values:
    """Losses of the items of a group.

    keeping: signed scores too. told: share of the work before and after, for the progress.
    Raises Unsupported, NotFinite.
    """

    def choose(output: torch.Tensor, rows: NDArray[np.int64], batch: Data) -> list[Direction]:
        return list(model.head.directions(output, rows, samples, task.seed))

    work = _Work(task, model, len(rows), keeping, spans, min(GRADIENT_CELLS, activation_bytes // 4 // GRADIENT_PART))
    walk = walk_rows(task, model, rows, choose, work.of, told, activation_bytes)
    signed = torch.cat([work.signed[number] for number in range(len(walk.cuts))]).cpu().numpy() if keeping else None
    return Values(back(work.values), work.reached, rows, len(walk.weights[0]) * spans.count, signed)


class _Work:
    """Scores of one group, filled block by block."""

    def __init__(
        self, task: ScoringTask, model: BlockModel, items: int, keeping: bool, spans: Spans, most: int
    ) -> None:
        self.task, self.model, self.keeping, self.spans, self.most = task, model, keeping, spans, most
        self.values = torch.zeros(items, *task.shape, dtype=torch.float64, device=computing())
        self.reached = np.zeros(task.shape[0], np.bool_)
        self.signed: dict[int, torch.Tensor] = {}

    def of(self, walk: Walk) -> _Work:
        self.walk = walk
        self.starts = np.cumsum([0, *map(len, walk.cuts)])
        return self

    def begin(self, block: int) -> None:
        self.codes: Codes | None = Codes(self.task, self.model, block, energies=True)

    def end(self, block: int) -> None:
        self.codes = None

    def see(self, number: int, uses: Sequence[Use], batch: Data) -> None:
        """Adds a batch's losses in the block's units."""
        assert self.codes is not None
        items, norm = len(self.walk.cuts[number]), self.walk.norms[number]
        weights = self.walk.weights[number].repeat_interleave(self.spans.count, dim=0)
        some, weight = slice(int(self.starts[number]), int(self.starts[number + 1])), weights[:, :, None]
        if self.keeping and number not in self.signed:
            self.signed[number] = torch.zeros(items, len(weights), *self.task.shape, device=weights.device)
        of_unit: dict[int, list[Use]] = {}
        for use in uses:
            of_unit.setdefault(use.unit, []).append(use)
        for unit, found in of_unit.items():
            scores, reached = _unit_scores(self.codes, unit, found, batch, self.spans, self.most)
            if not all_finite(scores):
                raise NotFinite(
                    "the backward pass gave NaN or infinity", hint="the model overflows on this calibration data"
                )
            if self.keeping:
                scale = (weight * len(weight) / norm).sqrt()
                self.signed[number][:, :, unit] = (scores * scale).transpose(0, 1).float()
            self.values[some, unit] = (weight * scores.square()).sum(0) / (2 * norm)
            self.reached[unit] |= reached


#: Inputs (items x spans, length, in), and gradients (directions x items x spans, length, out).
Laid = tuple[torch.Tensor, torch.Tensor]


def _laid(use: Use, batch: Data, spans: Spans) -> Laid:
    positions = int(batch.inputs["input_ids"].shape[1]) if "input_ids" in batch.inputs else 0
    found = laid_out(use.call, batch.items, positions, spans)
    if found is None:
        raise Unsupported(
            "a layer does not say which positions it sees", expected="whole sequences",
            hint="set the metric's option span to 0",
        )  # fmt: skip
    return found.inputs, torch.cat([found.lay(gradient) for gradient in use.gradients])


def _unit_scores(
    codes: Codes, unit: int, uses: list[Use], batch: Data, spans: Spans, most: int
) -> tuple[torch.Tensor, bool]:
    """float64 (directions x spans, items, formats): <G_s, dW>, the cheaper way (directional.py).

    And whether any G is not zero. most: numbers of the G that are held at once.
    """
    directions, items = len(uses[0].gradients), batch.items * spans.count
    flat = [_laid(use, batch, spans) for use in uses]
    if replays(len(codes.formats), sum(x.shape[1] for x, _ in flat), directions):
        scores, reached = _replayed(codes, unit, flat, directions)
    else:
        scores, reached = _by_gradients(codes, unit, flat, directions * items, most)
    apart = scores.reshape(directions, batch.items, spans.count, -1).transpose(1, 2)
    return apart.flatten(0, 1), reached


def _by_gradients(codes: Codes, unit: int, flat: Sequence[Laid], jobs: int, most: int) -> tuple[torch.Tensor, bool]:
    """float64 (jobs, formats): G = sum_t d_t x_t' of some directions, items and spans at a time, then <G, dW>."""
    device, items = flat[0][0].device, len(flat[0][0])
    scores, reached = torch.zeros(jobs, len(codes.formats), dtype=torch.float64, device=device), False
    for some in torch.split(torch.arange(jobs, device=device), max(1, most // codes.cells(unit))):
        products = [torch.bmm(d[some].float().transpose(1, 2), x[some % items].float()) for x, d in flat]
        gradient = torch.stack(products).sum(0).flatten(1) if len(products) > 1 else products[0].flatten(1)
        reached = reached or bool(gradient.any())
        for column, error in enumerate(codes.errors(unit)):
            scores[some, column] = (gradient @ error.flatten()).double()
    return scores, reached


def _replayed(codes: Codes, unit: int, flat: Sequence[Laid], directions: int) -> tuple[torch.Tensor, bool]:
    """The same numbers from y_t = dW x_t, once a format, and its product with every d: no G is made."""
    items, device = len(flat[0][0]), flat[0][0].device
    scores = torch.zeros(directions, items, len(codes.formats), dtype=torch.float64, device=device)
    known = [(x.float(), d.float().reshape(directions, items, -1).transpose(0, 1)) for x, d in flat]
    for column, error in enumerate(codes.errors(unit)):
        for x, d in known:
            scores[:, :, column] += torch.bmm(d, (x @ error.T).flatten(1)[:, :, None])[:, :, 0].T
    reached = any(
        bool((d.any(-1).reshape(directions, *x.shape[:2]).any(0) & x.any(-1)).any()) for x, d in flat
    )  # fmt: skip
    return scores.flatten(0, 1), reached
