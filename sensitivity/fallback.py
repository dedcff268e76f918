"""Losses for units that the calibration data never reached: a stated stand-in, never zero."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bitwright.core.errors import JobFailed
from sensitivity.base import Losses, ScoringTask


def fill_unmeasured(
    task: ScoringTask, loss: Losses, stderr: Losses, reached: NDArray[np.bool_]
) -> tuple[Losses, Losses, tuple[str, ...]]:
    """Fills unreached rows with squared error x the median of loss / squared error over reached units of the same role.

    Of all reached units where the role has none. stderr becomes NaN. Returns the names of the filled units. Raises
    JobFailed when nothing was reached.
    """
    missing = np.flatnonzero(~reached)
    if not len(missing):
        return loss, stderr, ()
    if not reached.any():
        raise JobFailed(
            "no planned unit has any influence on the model's output",
            got="every gradient is zero",
            hint="the model's output is constant on this data; check the model and the calibration data",
        )
    energy = task.deltas.energies()
    ratio = np.divide(loss, energy, out=np.full_like(loss, np.nan), where=energy > 0)
    roles = np.array([unit.module for unit in task.inventory.units])
    loss, stderr = loss.copy(), stderr.copy()
    for unit in missing:
        same = reached & (roles == roles[unit])
        chosen = same if same.any() else reached
        median = np.array([_median(column) for column in ratio[chosen].T])
        loss[unit] = energy[unit] * median
        stderr[unit] = np.nan
    return loss, stderr, tuple(task.inventory.units[i].name for i in missing)


def _median(column: NDArray[np.float64]) -> float:
    known = column[np.isfinite(column)]
    return float(np.median(known)) if len(known) else 0.0
