"""`fisher` losses of single output rows, from the same passes as those of whole units.

Rows are the finer unit that pays most: one width an output row gave 0.66-0.69 of the tensor plan's KL at equal true
bytes (research/09).

    score[row, f, s, k] = sum over t of d_t,row (dW_f x_t)_row
    loss[row, f]        = 1/2 mean over s of sum over k of weight_k score^2 / positions

Cost: the passes of `fisher`, and F local products of every layer (an inner product with a whole gradient cannot be
split by rows without as much memory traffic). The sum over rows is not the unit's loss: that also has the covariance
between rows, which additive plans leave out.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from bitwright.core.errors import NotFinite
from sensitivity.base import ScoringTask
from sensitivity.local import Layer, Passes, Visit, visit_layers

RowLosses = dict[str, NDArray[np.float64]]


def row_losses(task: ScoringTask) -> RowLosses:
    """Unit name -> float64 (out, formats) losses of its rows, in the unit of `fisher`. Units not reached are zero.

    Raises InvalidCalibration, NotFinite, Unsupported (weights used outside linear layers).
    """
    total = [torch.zeros(task.shape[1], unit.shape[0], dtype=torch.float64) for unit in task.inventory.units]

    def add(visit: Visit) -> None:
        scores: dict[int, torch.Tensor] = {}
        weights: dict[int, torch.Tensor] = {}
        for unit, layer in visit.layers:
            scores[unit] = scores.get(unit, torch.zeros(())) + _row_scores(layer)
            weights[unit] = layer.weights
        for unit, score in scores.items():
            total[unit] += torch.einsum("kb,kbfo->fo", weights[unit], score.square()) / (2 * visit.norm)

    visit_layers(task, Passes("drawn"), add)
    if not all(bool(torch.isfinite(rows).all()) for rows in total):
        raise NotFinite("scoring gave NaN or infinity", hint="the model overflows on this calibration data")
    names = [unit.name for unit in task.inventory.units]
    items = task.data.items if task.data is not None else 1
    return {name: (loss / items).numpy().T.copy() for name, loss in zip(names, total, strict=True)}


def _row_scores(layer: Layer) -> torch.Tensor:
    """float64 (directions, items, formats, out)."""
    errors = [layer.output_error(column) for column in range(len(layer.errors))]
    return torch.stack(
        [torch.stack([(e * g).sum(1) for e in errors], dim=1) for g in layer.gradients]
    ).double()  # sums over positions in float32, as in the layer's own products
