"""Losses for units that the calibration data never reached: a stated stand-in, never zero."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bitwright.core.errors import JobFailed
from sensitivity.base import Losses, ScoringTask

#: Losses over squared errors below this share of the median unit's are float32 rounding: a score's is up to 1e-6 of its
#: terms. An expert that takes one token of 16 k at a hundredth of its weight has 1e-9 of it.
ROUNDING = 1e-11


def heard(loss: Losses, energy: Losses) -> NDArray[np.bool_]:
    """(units,) whether a unit's losses are more than rounding. loss, energy: (units, formats).

    Queries and keys of sequences of one position, say: their gradient is zero, and comes out as 1e-7 of the others'.
    """
    ratio = np.divide(loss, energy, out=np.zeros_like(loss), where=energy > 0).max(axis=1, initial=0.0)
    exact = energy.max(axis=1, initial=0.0) == 0
    known = ratio[ratio > 0]
    found: NDArray[np.bool_] = exact | (ratio > (ROUNDING * float(np.median(known)) if len(known) else 0.0))
    return found


def fill_unmeasured(
    task: ScoringTask, loss: Losses, stderr: Losses, reached: NDArray[np.bool_]
) -> tuple[Losses, Losses, tuple[str, ...]]:
    """Fills unreached rows with squared error x the median of loss / squared error over reached units of the same role.

    Of all reached units where the role has none. stderr becomes NaN. Returns the names of the filled units. Raises
    JobFailed when nothing was reached.
    """
    reached = reached & heard(loss, task.deltas.energies())
    missing = np.flatnonzero(~reached)
    if not len(missing):
        return loss, stderr, ()
    _some(reached)
    loss, stderr = _stand_in(task.deltas.energies(), np.arange(len(reached)), task, loss, stderr, reached)
    return loss, stderr, tuple(task.inventory.units[i].name for i in missing)


def fill_silent(task: ScoringTask, loss: Losses, stderr: Losses) -> tuple[Losses, Losses, tuple[str, ...]]:
    """`fill_unmeasured` for metrics that really change one unit at a time: where no change of a unit changed any
    output, no token reached it (an expert), unless its formats change nothing either."""
    missing = [unit for unit in np.flatnonzero(~loss.any(axis=1)).tolist() if task.deltas.energy(unit).any()]
    if not missing:
        return loss, stderr, ()
    return fill_unmeasured(task, loss, stderr, ~np.isin(np.arange(len(loss)), missing))


def fill_unmeasured_parts(
    task: ScoringTask,
    energy: Losses,
    units: NDArray[np.int64],
    loss: Losses,
    stderr: Losses,
    reached: NDArray[np.bool_],
) -> tuple[Losses, Losses, tuple[str, ...]]:
    """As `fill_unmeasured`, for parts of units. energy: (parts, formats); units: (parts,), the unit of each part."""
    if reached.all():
        return loss, stderr, ()
    _some(reached)
    loss, stderr = _stand_in(energy, units, task, loss, stderr, reached)
    return loss, stderr, tuple(task.inventory.units[i].name for i in np.flatnonzero(~reached))


def _some(reached: NDArray[np.bool_]) -> None:
    """Raises JobFailed where nothing was reached."""
    if not reached.any():
        raise JobFailed(
            "no planned unit has any influence on the model's output",
            got="every gradient is zero",
            hint="the model's output is constant on this data; check the model and the calibration data",
        )


def _stand_in(
    energy: Losses,
    units: NDArray[np.int64],
    task: ScoringTask,
    loss: Losses,
    stderr: Losses,
    reached: NDArray[np.bool_],
) -> tuple[Losses, Losses]:
    ratio = np.divide(loss, energy, out=np.full_like(loss, np.nan), where=energy > 0)
    roles, of_row = np.array([unit.module for unit in task.inventory.units]), reached[units]
    loss, stderr = loss.copy(), stderr.copy()
    for role in np.unique(roles[~reached]):
        mine = roles[units] == role
        chosen = of_row & mine if (of_row & mine).any() else of_row
        median = np.array([_median(column) for column in ratio[chosen].T])
        loss[mine & ~of_row] = energy[mine & ~of_row] * median
        stderr[mine & ~of_row] = np.nan
    return loss, stderr


def _median(column: NDArray[np.float64]) -> float:
    known = column[np.isfinite(column)]
    return float(np.median(known)) if len(known) else 0.0
