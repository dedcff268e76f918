"""`rate-distortion`: measured distortion of a unit as a source of unit power, times its number of weights.

    loss[u, f] = n_u ||dW||^2 / ||W||^2

The operational distortion-rate function of the unit's own values under the quantizer that will be used; a Gaussian
source of unit power could not do better than n_u 2^(-2 bits) (Shannon 1959; research/01 section 0). Against
`weight-mse` the scale of a unit does not count, which normalisation layers undo anyway. No data, no passes; exact,
so stderr is 0. Loss unit: relative squared error.
"""

from __future__ import annotations

import numpy as np

from sensitivity.base import Scores, ScoringTask
from sensitivity.deltas import unit_weight

LOSS_UNIT = "relative squared error of the weights"


class RateDistortion:
    """Distortion relative to power."""

    name = "rate-distortion"
    needs_data = False
    options = frozenset[str]()

    def score(self, task: ScoringTask) -> Scores:
        """See sensitivity.base.Metric."""
        energy = task.deltas.energies(task.progress)
        weights = (unit_weight(task.source, unit).astype(np.float64) for unit in task.inventory.units)
        power = np.array([float(np.vdot(weight, weight)) for weight in weights])[:, None]
        sizes = np.array([unit.elements for unit in task.inventory.units], np.float64)[:, None]
        loss = np.divide(sizes * energy, power, out=np.zeros_like(energy), where=power > 0)
        return Scores(loss=loss, stderr=np.zeros_like(loss), loss_unit=LOSS_UNIT)


METRIC = RateDistortion()
