"""The column sweep of GPTQ for any grid of scales: each weight may have its own scale, zero point and top code.

For columns j = 0, 1, ...:  q = clip(rint(w_j / s) + z, 0, top);  e = (w_j - (q - z) s) / U_jj;  w_k -= e U_jk, k > j.
Columns go in blocks ("lazy blocks"): inside a block the update is immediate, and a block that is reached takes what all
errors before it ask for in one matrix product, the columns of the block long and all before it deep: nothing as large
as the weights is written but the errors, which take the place of the weights that they are of. All in float64. The
native code repeats the lines of `_block` in the same order, without fused multiply-adds, some rows a thread: the same
codes. quantizers.on_device does the same on another device.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from scipy.linalg.lapack import dpotrf, dtrtri

from gpu_kernels.library import library
from gpu_kernels.threads import over_rows
from quantizers.base import Float32Matrix

Float64 = NDArray[np.float64]
#: Rows that are copied at once.
TILE = 128


@dataclass(frozen=True, eq=False)
class Grid:
    """What the weights are rounded to, by row and group of columns.

    scales, zeros: (rows, groups); top: the largest code, or (rows, groups) of them. of: (columns,) the group of every
    column, columns in the order of the sweep. signs: (rows, groups), where a group holds +-scale (`sign` formats: 2 s
    (code - 1/2), on weights moved up by s the grid of step 2 s from zero), or None.

    begins: first column -> (group, the column behind it) of groups that `decide` sets scales and zeros of when the
    sweep reaches them, from their weights as they stand, float32 (rows, size).
    """

    scales: NDArray[Any]
    zeros: NDArray[Any]
    top: NDArray[np.uint8] | int
    of: NDArray[np.intp]
    signs: NDArray[np.bool_] | None = None
    begins: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    decide: Callable[[int, Float32Matrix], None] | None = None

    def begin(self, first: int, columns: Callable[[int, int], Float64]) -> int | None:
        """Decides the group that begins at a column, if one does, and gives its number. columns: reads weights."""
        if first not in self.begins or self.decide is None:
            return None
        group, last = self.begins[first]
        self.decide(group, columns(first, last).astype(np.float32))
        return group

    def cells(self, first: int, last: int, weights: Float64) -> Cells:
        """Of columns of the sweep and their weights (rows, last - first); weights of `sign` groups are moved."""
        present, of = np.unique(self.of[first:last], return_inverse=True)
        step, zero = (np.take(all, present, axis=1).astype(np.float64) for all in (self.scales, self.zeros))
        if self.signs is not None:
            signs = self.signs[:, present]
            weights += np.take(np.where(signs, step, 0), of, axis=1)
            step[signs] *= 2
        if isinstance(self.top, int):
            return Cells(step, zero, np.full(step.shape, self.top, np.float64), of)
        return Cells(step, zero, np.take(self.top, present, axis=1).astype(np.float64), of)


@dataclass(frozen=True, eq=False)
class Cells:
    """scale, zero, top: float64 (rows, groups) of the groups in a block. of: (width,) the group of every column."""

    scale: Float64
    zero: Float64
    top: Float64
    of: NDArray[np.intp]


def sweep(
    weight: NDArray[np.floating[Any]],
    order: NDArray[np.intp],
    upper: Float64,
    cuts: Sequence[int],
    grid: Grid,
    losses: Float64 | None = None,
) -> NDArray[np.uint8]:
    """uint8 codes (rows, columns) of a float32 or float64 weight, columns as they lie.

    order: of the sweep. upper: U of H^-1 = U'U in it. cuts: block boundaries, from 0 to the number of columns. losses:
    (rows, columns) array that takes e^2 / 2 of every weight, what its rounding costs once the columns behind it have
    made up for it.
    """
    rows, columns = weight.shape
    made = np.empty((rows, columns), np.uint8)
    work = _Work(weight, order, upper)
    for first, last in pairwise(cuts):
        grid.begin(first, work.columns)
        weights = work.columns(first, last)
        _round(weights, upper[first:last, first:last], grid.cells(first, last, weights), made[:, first:last])
        if losses is not None:
            losses[:, order[first:last]] = np.square(weights) / 2
    return np.take(made, np.argsort(order), axis=1)


class _Work:
    """Float64 weights in the order of the sweep. Behind the sweep their errors e stand in their place."""

    def __init__(self, weight: NDArray[np.floating[Any]], order: NDArray[np.intp], upper: Float64) -> None:
        self.all: Float64 = np.empty(weight.shape)
        for start in range(0, len(weight), TILE):
            self.all[start : start + TILE] = np.take(weight[start : start + TILE], order, axis=1)
        self._upper = upper
        # Columns before `_until` have made up for the errors of those before `_since`.
        self._since = self._until = 0

    def columns(self, first: int, last: int) -> Float64:
        """(rows, last - first) weights that have made up for all errors before `first`, to which the sweep has come."""
        since = self._since if first < self._until else 0
        if since < first:
            self.all[:, first:last] -= self.all[:, since:first] @ self._upper[since:first, first:last]
        if last >= self._until:
            self._since, self._until = first, last
        return self.all[:, first:last]


def factor(definite: Float64) -> Float64 | None:
    """U with H^-1 = U'U, U upper, H (in, in) contiguous, whose memory U takes; None where H is not definite."""
    if not len(definite):
        return definite
    # With L of the H that is read backwards, LL', its R = L read backwards is upper and H = RR', so U = R^-1 is L^-1
    # read backwards. LAPACK takes rows for columns, and what it calls upper is L here.
    _reverse(definite)
    found, failed = dpotrf(definite.T, lower=0, clean=1, overwrite_a=1)
    if not failed:
        found, failed = dtrtri(found, lower=0, overwrite_c=1)
    if failed:
        return None
    _reverse(found.T)
    return np.asarray(found.T, np.float64)


def _reverse(matrix: Float64) -> None:
    """The last number first and so on, in place: of wide layers each matrix takes more than their weights."""
    flat, step = matrix.reshape(-1), 1 << 16
    for start in range(0, len(flat) // 2, step):
        stop = min(start + step, len(flat) // 2)
        front, back = flat[start:stop], flat[len(flat) - stop : len(flat) - start]
        front[:], back[:] = back[::-1].copy(), front[::-1].copy()


class Rest:
    """Weights, columns as they lie, whose rounding is done elsewhere, some columns at once (see block_sweep)."""

    def __init__(self, weight: Float32Matrix, upper: Float64) -> None:
        self._work, self._upper = weight.astype(np.float64), upper

    def columns(self, first: int, last: int) -> Float64:
        """float64 (rows, last - first): as they stand."""
        return self._work[:, first:last]

    def passed(self, first: int, last: int, rounded: Float64) -> None:
        """Columns behind make up for these having become `rounded`: W_B - Q_B = E U_BB, W_later -= E U_B,later."""
        upper, delta = self._upper, self._work[:, first:last] - rounded
        errors = solve_triangular(upper[first:last, first:last].T, delta.T, lower=True).T
        self._work[:, last:] -= errors @ upper[first:last, last:]


def blocks(columns: int, block: int, starts: Sequence[int] = ()) -> list[int]:
    """Boundaries of blocks of at most `block` columns; every number of `starts` is one of them."""
    marks = sorted({0, columns, *starts})
    return sorted({*marks, *(cut for a, b in pairwise(marks) for cut in range(a, b, block))})


def _round(weights: Float64, upper: Float64, cells: Cells, codes: NDArray[np.uint8]) -> None:
    """Rounds one block of columns, (rows, width) all but upper, (width, width). Errors take the weights' place."""
    native = library()
    if native is None:
        _block(weights, upper, cells, codes)
        return
    width, groups = weights.shape[1], cells.scale.shape[1]
    grid = [np.ascontiguousarray(part, np.float64) for part in (cells.scale, cells.zero, cells.top)]
    of = np.ascontiguousarray(cells.of, np.int64)

    def some(start: int, stop: int) -> int:
        native.bw_gptq_block(
            _at(weights, start), stop - start, weights.strides[0] // 8, width, _at(upper, 0), upper.strides[0] // 8,
            *(_at(part, start) for part in grid), groups, of.ctypes.data, _at(codes, start), codes.strides[0],
        )  # fmt: skip
        return 0

    # Every weight changes those behind it in the block: half a block of them.
    over_rows(len(weights), width * max(1, width // 2), some)


def _block(weights: Float64, upper: Float64, cells: Cells, codes: NDArray[np.uint8]) -> None:
    for j, group in enumerate(cells.of):
        scale, zero, top = cells.scale[:, group], cells.zero[:, group], cells.top[:, group]
        rounded = np.clip(np.rint(weights[:, j] / scale) + zero, 0, top)
        codes[:, j] = rounded
        weights[:, j] = (weights[:, j] - (rounded - zero) * scale) / upper[j, j]
        weights[:, j + 1 :] -= np.outer(weights[:, j], upper[j, j + 1 :])


def _at(array: NDArray[Any], row: int) -> ctypes.c_void_p:
    """Address of a row of a matrix whose rows are contiguous."""
    return ctypes.c_void_p(array.ctypes.data + row * array.strides[0])
