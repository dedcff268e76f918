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
from sensitivity.local import Passes, Visit, gather_layers
from sensitivity.partial import State
from sensitivity.salience import column_errors
from sensitivity.share import by_units, one_by_one

LOSS_UNIT = "activation-weighted squared error"


class AwqScale:
    """Activation scales."""

    name = "awq-scale"
    needs_data = True
    options = frozenset[str]()

    def score(self, task: ScoringTask) -> Scores:
        """See sensitivity.base.Metric."""
        sums: dict[int, NDArray[np.float64]] = {}
        tokens = 0
        runner, said = gather_layers(task, Passes("none"), _sizes)
        for batch in said:
            tokens += int(batch["tokens"])
            ends = np.cumsum(batch["widths"])
            for unit, end, width in zip(batch["units"].tolist(), ends, batch["widths"], strict=True):
                size = batch["sizes"][end - width : end]
                sums[unit] = sums.get(unit, np.zeros(len(size))) + size

        def weigh(units: tuple[int, ...]) -> Iterator[tuple[int, State]]:
            for unit in units:
                if unit in sums:
                    loss = column_errors(task.deltas.stack(unit)) @ (sums[unit] / max(1, tokens)) ** 2
                    yield unit, {"loss": loss, "energy": task.deltas.energy(unit)}

        loss, reached = np.zeros(task.shape), np.zeros(task.shape[0], np.bool_)
        for unit, row in by_units(task, one_by_one(task.inventory), weigh).items():
            loss[unit], reached[unit] = row["loss"], True
        loss, stderr, unmeasured = fill_unmeasured(task, loss, np.full(task.shape, np.nan), reached)
        return Scores(
            loss=loss, stderr=stderr, loss_unit=LOSS_UNIT, tokens=task.data.tokens if task.data else 0,
            samples=task.data.items if task.data else 0, unmeasured=unmeasured, warnings=runner.warnings,
        )  # fmt: skip


def _sizes(visit: Visit) -> State:
    """Of each use of a layer in a batch, the sums of its inputs' magnitudes, one use after another."""
    sizes = [layer.inputs.abs().double().sum((0, 1)).numpy() for _, layer in visit.layers]
    tokens = max((layer.inputs.shape[0] * layer.inputs.shape[1] for _, layer in visit.layers), default=0)
    return {
        "tokens": np.array(tokens), "units": np.array([unit for unit, _ in visit.layers], np.int64),
        "widths": np.array([len(size) for size in sizes], np.int64), "sizes": np.concatenate([np.zeros(0), *sizes]),
    }  # fmt: skip


METRIC = AwqScale()
