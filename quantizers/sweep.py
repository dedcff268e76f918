"""The column sweep of GPTQ for any grid of scales: each weight may have its own scale, zero point and top code.

For columns j = 0, 1, ...:  q = clip(rint(w_j / s) + z, 0, top);  e = (w_j - (q - z) s) / U_jj;  w_k -= e U_jk, k > j.
Columns go in blocks: inside a block the update is immediate, what lies behind it gets one matrix product ("lazy
blocks"). All in float64. The native code repeats the lines of `_block` in the same order, without fused multiply-adds:
the same codes.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from gpu_kernels.library import library

Float64 = NDArray[np.float64]
#: (scale, zero, top), each float64 (rows, last - first), for columns first..last, from the weights as they stand.
Grid = Callable[[int, int, Float64], tuple[Float64, Float64, Float64]]


def sweep(
    weight: Float64, upper: Float64, cuts: Sequence[int], grid: Grid, *, threads: int = 1, losses: Float64 | None = None
) -> NDArray[np.uint8]:
    """uint8 codes (rows, columns). weight, in the order of the sweep, is used up.

    upper: U of H^-1 = U'U in the same order. cuts: block boundaries, from 0 to the number of columns. losses: takes
    e^2 / 2 of every weight, what its rounding costs once the columns behind it have made up for it.
    """
    rows, columns = weight.shape
    codes = np.empty((rows, columns), np.uint8)
    native = library()
    for first, last in pairwise(cuts):
        cells = tuple(np.ascontiguousarray(part, np.float64) for part in grid(first, last, weight))
        part, errors = np.empty((rows, last - first), np.uint8), np.empty((rows, last - first))
        if native is None:
            _block(weight, upper, (first, last), cells, part, errors)
        else:
            native.bw_gptq_block(
                _at(weight, 0, first), rows, weight.strides[0] // 8, last - first,
                _at(upper, first, first), upper.strides[0] // 8,
                *(array.ctypes.data for array in cells), part.ctypes.data, errors.ctypes.data, threads,
            )  # fmt: skip
        codes[:, first:last] = part
        if losses is not None:
            losses[:, first:last] = np.square(errors) / 2
        if last < columns:
            weight[:, last:] -= errors @ upper[first:last, last:]
    return codes


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
