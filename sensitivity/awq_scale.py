"""`awq-scale`: squared error weighed by the size of the activations that meet it (AWQ, arXiv:2306.00978, section 3.2).

    a_j = mean over tokens of |x_j|,      loss[u, f] = sum_ij (a_j dW_ij)^2

a_j is what AWQ finds salient input channels by and scales them with. Tokens that do not reach an expert count as
zero. Loss unit: none. Cost: 1 forward pass; formats are free. No cross terms between inputs (`hessian` has them).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from sensitivity.base import Scores, ScoringTask
from sensitivity.fallback import fill_unmeasured
from sensitivity.layers import Layer, Passes
from sensitivity.local import LayerPasses
from sensitivity.on_device import back
from sensitivity.partial import State
from sensitivity.salience import column_errors
from sensitivity.share import blocks_of, by_units
from sensitivity.stream_options import OPTIONS

LOSS_UNIT = "activation-weighted squared error"


class AwqScale:
    """Activation scales."""

    name = "awq-scale"
    needs_data = True
    options = OPTIONS

    def score(self, task: ScoringTask) -> Scores:
        """See sensitivity.base.Metric."""
        layers = LayerPasses(task, Passes("none"))

        def rows(units: tuple[int, ...]) -> Iterator[tuple[int, State]]:
            sums: dict[int, NDArray[np.float64]] = {}
            losses: dict[int, NDArray[np.float64]] = {}

            def add(unit: int, layer: Layer) -> None:
                size = back(layer.inputs.abs().double().sum((0, 1)))
                sums[unit] = sums.get(unit, np.zeros(len(size))) + size

            def close(unit: int) -> None:
                losses[unit] = column_errors(task.deltas.stack(unit)) @ sums.pop(unit) ** 2

            tokens = layers.visit(units, add, close).positions
            for unit, loss in losses.items():
                yield unit, {"loss": loss / max(1, tokens) ** 2, "energy": task.deltas.energy(unit)}

        loss, reached = np.zeros(task.shape), np.zeros(task.shape[0], np.bool_)
        for unit, row in by_units(task, blocks_of(task.inventory), rows).items():
            loss[unit], reached[unit] = row["loss"], True
        loss, stderr, unmeasured = fill_unmeasured(task, loss, np.full(task.shape, np.nan), reached)
        return Scores(
            loss=loss, stderr=stderr, loss_unit=LOSS_UNIT, tokens=task.data.tokens if task.data else 0,
            samples=task.data.items if task.data else 0, unmeasured=unmeasured, warnings=layers.ran.warnings,
        )  # fmt: skip


METRIC = AwqScale()
