"""Second moments of a unit's inputs, which the calibrated quantizers weigh errors by: H = sum over tokens of x x'."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.core.errors import InvalidCalibration

Float64 = NDArray[np.float64]
#: Rows and columns of a Hessian that are compared at once (in the second-level cache), and rows that are copied.
TILE = 128


def checked_hessian(hessian: NDArray[Any] | None, columns: int, name: str) -> Float64 | None:
    """The Hessian in float64, or None. Raises InvalidCalibration for another shape, NaN, infinity, or asymmetry."""
    if hessian is None:
        return None
    found = np.asarray(hessian, dtype=np.float64)
    if found.shape != (columns, columns):
        raise InvalidCalibration(
            f"{name}: the Hessian does not fit", expected=f"({columns}, {columns})", got=str(found.shape)
        )
    # NaN is the largest and the smallest of numbers it stands among.
    largest = max(float(found.max(initial=0)), -float(found.min(initial=0)))
    if not np.isfinite(largest):
        raise InvalidCalibration(
            f"{name}: the Hessian holds NaN or infinity",
            hint="the model gave NaN on the calibration data; look at the data, or run in float32",
        )
    if not _symmetric(found, 1e-4, 1e-6 * largest):
        raise InvalidCalibration(f"{name}: the Hessian is not symmetric", expected="a sum of x x'")
    return found


def _symmetric(matrix: Float64, relative: float, absolute: float) -> bool:
    """|a - b| <= absolute + relative min(|a|, |b|) of every pair across the diagonal, some pairs at once."""
    for top in range(0, len(matrix), TILE):
        for left in range(0, top + 1, TILE):
            a = matrix[top : top + TILE, left : left + TILE]
            b = matrix[left : left + TILE, top : top + TILE].T
            apart = np.abs(a - b)
            if apart.max() > absolute and (apart > absolute + relative * np.minimum(np.abs(a), np.abs(b))).any():
                return False
    return True


def damped(hessian: Float64, damping: float, order: NDArray[np.intp] | None = None) -> Float64:
    """A positive definite copy: dead inputs decoupled, `damping` times the mean diagonal added to the diagonal.

    order: of the copy's inputs, or None: as they lie.

    An input that no token excited says nothing about its weights: it gets the mean diagonal and no neighbours, so
    that its weights are simply rounded to nearest (GPTQ's own code sets them to zero; a later token may need them).
    """
    diagonal = np.diag(hessian).copy()
    dead = diagonal <= 0
    mean = float(diagonal[~dead].mean()) if not dead.all() else 1.0
    if order is None:
        work = hessian.copy()
    else:
        diagonal, dead, work = diagonal[order], dead[order], np.empty(hessian.shape)
        for start in range(0, len(order), TILE):
            work[start : start + TILE] = np.take(hessian[order[start : start + TILE]], order, axis=1)
    work[dead, :] = 0
    work[:, dead] = 0
    diagonal[dead] = mean
    np.fill_diagonal(work, diagonal + damping * mean)
    return work


def column_costs(definite: Float64) -> Float64:
    """1 / U_jj^2 of every input, U'U = H^-1 (U upper), H definite: what an error of its weights costs once the weights
    behind it make up for it (OBS; research/01 section 0).
    """
    inverse = np.linalg.inv(definite)
    # L L' = H^-1 has L = U' for the upper U of GPTQ; the diagonals agree.
    diagonal = np.diag(np.linalg.cholesky((inverse + inverse.T) / 2))
    return np.asarray(1.0 / diagonal**2, np.float64)
