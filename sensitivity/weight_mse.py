"""`weight-mse`: the sum of squared weight errors, ||dW||^2.

Cost: no passes, no data. Loss unit: squared error (not nats): sums of it order formats of one unit well and units
badly; research/08 section 0 measured plans 3 to 8 times worse in KL than `fisher`. Exact, so stderr is 0.
"""

from __future__ import annotations

import numpy as np

from sensitivity import parts
from sensitivity.base import Scores, ScoringTask

LOSS_UNIT = "squared error of the weights"


class WeightMse:
    """loss[u, f] = sum over the unit's weights of (quantized - original)^2."""

    name = "weight-mse"
    needs_data = False
    options = frozenset[str]()

    def score(self, task: ScoringTask) -> Scores:
        """See sensitivity.base.Metric."""
        loss = task.deltas.energies(task.progress)
        return Scores(loss=loss, stderr=np.zeros_like(loss), loss_unit=LOSS_UNIT)

    def score_parts(self, task: ScoringTask) -> Scores:
        """As `score`, a row for each part of a unit (see parts.py)."""
        return parts.squared_error(task, LOSS_UNIT)


METRIC = WeightMse()
