"""`awq-scale`: squared error weighed by the size of the activations that meet it (AWQ, arXiv:2306.00978, section 3.2).

    a_j = mean over tokens of |x_j|,      loss[u, f] = sum_ij (a_j dW_ij)^2

a_j is what AWQ finds salient input channels by and scales them with. Tokens that do not reach an expert count as
zero. Loss unit: none. Cost: 1 forward pass; formats are free. No cross terms between inputs (`hessian` has them).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sensitivity.base import Scores, ScoringTask
from sensitivity.fallback import fill_unmeasured
from sensitivity.local import Passes, Visit, visit_layers
from sensitivity.salience import column_errors

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

        def add(visit: Visit) -> None:
            nonlocal tokens
            tokens += max((layer.inputs.shape[0] * layer.inputs.shape[1] for _, layer in visit.layers), default=0)
            for unit, layer in visit.layers:
                size = layer.inputs.abs().double().sum((0, 1)).numpy()
                sums[unit] = sums.get(unit, np.zeros(len(size))) + size

        runner, _ = visit_layers(task, Passes("none"), add)
        loss, reached = np.zeros(task.shape), np.zeros(task.shape[0], np.bool_)
        for unit, total in sums.items():
            loss[unit] = column_errors(task.deltas.stack(unit)) @ (total / max(1, tokens)) ** 2
            reached[unit] = True
        loss, stderr, unmeasured = fill_unmeasured(task, loss, np.full(task.shape, np.nan), reached)
        return Scores(
            loss=loss, stderr=stderr, loss_unit=LOSS_UNIT, tokens=task.data.tokens if task.data else 0,
            samples=task.data.items if task.data else 0, unmeasured=unmeasured, warnings=runner.warnings,
        )  # fmt: skip


METRIC = AwqScale()
