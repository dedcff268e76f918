"""The column sweep of GPTQ for any grid of scales: each weight may have its own scale, zero point and top code.

For columns j = 0, 1, ...:  q = clip(rint(w_j / s) + z, 0, top);  e = (w_j - (q - z) s) / U_jj;  w_k -= e U_jk, k > j.
Columns go in blocks: inside a block the update is immediate, what lies behind it gets one matrix product ("lazy
blocks"). All in float64. The native code repeats the lines of `_block` in the same order, without fused multiply-adds:
the same codes. quantizers.on_device does the same on another device.
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
from scipy.linalg.lapack import dtrtri

from gpu_kernels.library import library
from quantizers.base import Float32Matrix

Float64 = NDArray[np.float64]


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

    def cells(self, first: int, last: int, work: Float64) -> tuple[Float64, Float64, Float64]:
        """(scale, zero, top), float64 (rows, last - first) each; weights of `sign` groups are moved."""
        groups = self.of[first:last]
        step, zero = self.scales[:, groups].astype(np.float64), self.zeros[:, groups].astype(np.float64)
        if self.signs is not None:
            signs = self.signs[:, groups]
            work[:, first:last] += np.where(signs, step, 0)
            step[signs] *= 2
        if isinstance(self.top, int):
            return step, zero, np.full(step.shape, self.top, np.float64)
        return step, zero, self.top[:, groups].astype(np.float64)


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
    codes = np.empty((rows, columns), np.uint8)
    work = np.ascontiguousarray(weight[:, order], np.float64)
    native = library()
    for first, last in pairwise(cuts):
        grid.begin(first, lambda start, stop: work[:, start:stop])
        cells = tuple(np.ascontiguousarray(part, np.float64) for part in grid.cells(first, last, work))
        part, errors = np.empty((rows, last - first), np.uint8), np.empty((rows, last - first))
        if native is None:
            _block(work, upper, (first, last), cells, part, errors)
        else:
            native.bw_gptq_block(
                _at(work, 0, first), rows, work.strides[0] // 8, last - first,
                _at(upper, first, first), upper.strides[0] // 8,
                *(array.ctypes.data for array in cells), part.ctypes.data, errors.ctypes.data, 1,
            )  # fmt: skip
        codes[:, order[first:last]] = part
        if losses is not None:
            losses[:, order[first:last]] = np.square(errors) / 2
        if last < columns:
            work[:, last:] -= errors @ upper[first:last, last:]
    return codes


def factor(definite: Float64) -> Float64 | None:
    """U with H^-1 = U'U, U upper, H (in, in); None where H is not definite."""
    try:
        # The Cholesky factor of H read backwards, turned round again, is an upper R with H = RR'; U is its inverse.
        upper = np.linalg.cholesky(definite[::-1, ::-1])[::-1, ::-1]
    except np.linalg.LinAlgError:
        return None
    inverse = np.asfortranarray(upper)
    del upper  # of wide layers each of these matrices takes more than their weights
    inverse, failed = dtrtri(inverse, overwrite_c=1)
    return None if failed else np.ascontiguousarray(inverse)


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


def _block(
    work: Float64,
    upper: Float64,
    span: tuple[int, int],
    cells: tuple[Float64, ...],
    codes: NDArray[np.uint8],
    errors: Float64,
) -> None:
    first, last = span
    scale, zero, top = cells
    for j in range(first, last):
        at = j - first
        rounded = np.clip(np.rint(work[:, j] / scale[:, at]) + zero[:, at], 0, top[:, at])
        codes[:, at] = rounded
        errors[:, at] = (work[:, j] - (rounded - zero[:, at]) * scale[:, at]) / upper[j, j]
        work[:, j + 1 : last] -= np.outer(errors[:, at], upper[j, j + 1 : last])


def _at(array: Float64, row: int, column: int) -> ctypes.c_void_p:
    """Address of one number of a matrix whose rows are contiguous."""
    return ctypes.c_void_p(array.ctypes.data + row * array.strides[0] + column * array.itemsize)
