"""The 0-1 program of a reduced problem: one binary a cell, one equation a group, one row a limit or rule."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwright.core.problem import AT_LEAST, IntArray
from bitwright.core.problem_check import INT64_MAX
from solvers.highs import Model
from solvers.reduce import Reduced, Row, divisor

#: Seconds of a cell in each row of a program, and of a pair term, to build it and to send it to a child process, about.
PACE, PAIRED = 2e-7, 7e-7


@dataclass(frozen=True, eq=False)
class Program:
    """group, format: the cell of each of the first columns. place: column of each cell (-1 forbidden).

    model rows: groups equations, then one row for each of `rows`, then pair rows. scale[r]: what the integer row r was
    divided by, so a dual of the model row is `scale[r]` times that of the grid row. impossible: a pair-free row that no
    choice can meet was found while building (its name).
    """

    group: IntArray
    format: IntArray
    model: Model
    rows: tuple[Row, ...]
    scale: NDArray[np.float64]

    def choice(self, x: NDArray[np.float64], groups: int) -> IntArray:
        """Format of each group: its cell of largest value, the first among equals."""
        cells = x[: len(self.group)]
        order = np.lexsort((self.format, -cells, self.group))
        first = np.unique(self.group[order], return_index=True)[1]
        assert len(first) == groups
        return self.format[order][first]


def building(reduced: Reduced, rows: int) -> float:
    """Seconds that `build` takes, and what makes arrays of its program, about: with so many limits and rules."""
    return PACE * reduced.loss.size * (1 + rows) + PAIRED * len(reduced.pairs)


def build(reduced: Reduced, rows: tuple[Row, ...]) -> Program:
    group, form = np.nonzero(np.isfinite(reduced.loss))
    place = np.full(reduced.loss.shape, -1, np.int64)
    place[group, form] = np.arange(len(group))
    loss = reduced.loss - reduced.loss.min(axis=1, keepdims=True)
    cells = len(group)
    blocks = [(np.bincount(group, minlength=reduced.groups), np.arange(cells), np.ones(cells))]
    low, high = [np.ones(reduced.groups)], [np.ones(reduced.groups)]
    scale = np.ones(len(rows))
    for r, row in enumerate(rows):
        weight, base = _lifted(reduced, row)
        if row.sense != AT_LEAST:
            # A cell that does not fit beside the least of all others never will: its size must not set the scale. Half
            # as much again, because a program's tolerance would forgive one step.
            room = max(0, row.bound - base)
            weight = np.minimum(weight, min(room + room // 2 + 1, INT64_MAX))
        flat = weight[group, form]
        used = np.flatnonzero(flat)
        scale[r] = _divisor(flat)
        blocks.append((np.array([len(used)]), used, flat[used] / scale[r]))
        bound = np.array([(row.bound - base) / scale[r]])
        low.append(bound if row.sense == AT_LEAST else np.array([-np.inf]))
        high.append(np.array([np.inf]) if row.sense == AT_LEAST else bound)
    cost = np.concatenate([loss[group, form], reduced.pairs.loss])
    if len(reduced.pairs):
        count, index, value, bound = _pair_rows(reduced, place, cells)
        blocks.append((count, index, value))
        low.append(np.full(len(bound), -np.inf))
        high.append(bound)
    start = np.append(0, np.cumsum(np.concatenate([count for count, _, _ in blocks])))
    index = np.concatenate([i for _, i, _ in blocks])
    value = np.concatenate([v for _, _, v in blocks])
    integer = np.arange(len(cost)) < cells
    return Program(
        group, form, Model(cost, integer, start, index, value, np.concatenate(low), np.concatenate(high)), rows, scale
    )


def _lifted(reduced: Reduced, row: Row) -> tuple[IntArray, int]:
    """Weights less each group's least allowed one (smaller numbers for HiGHS), and the sum of what was taken off."""
    allowed = np.isfinite(reduced.loss)
    least = np.where(allowed, row.weight, np.iinfo(np.int64).max).min(axis=1)
    return np.where(allowed, row.weight - least[:, None], 0), int(least.sum())


def _divisor(flat: IntArray) -> float:
    """Common divisor of the weights, and a power of two more when they would still exceed 2^20."""
    common = divisor(flat)
    if common == 0:
        return 1.0
    top = int(flat.max()) // common
    return common * 2.0 ** max(0, top.bit_length() - 20)


def _pair_rows(
    reduced: Reduced, place: IntArray, cells: int
) -> tuple[IntArray, IntArray, NDArray[np.float64], NDArray[np.float64]]:
    """(entries of each row, columns, values, upper bounds): y >= a + b - 1 for a loss, y <= a and y <= b for a gain; a
    pair with a forbidden cell is held at 0."""
    pairs = reduced.pairs
    ends = place[pairs.unit, pairs.format]
    forbidden = ends.min(axis=1) < 0
    gain = ~forbidden & ~(pairs.loss > 0)
    pair = np.repeat(np.arange(len(pairs)), 1 + gain)
    second = np.append(False, pair[1:] == pair[:-1])
    y, a, b, zero = cells + pair, ends[pair, 0], ends[pair, 1], np.zeros(len(pair), np.int64)
    kinds = [forbidden[pair], gain[pair]]
    count = np.select(kinds, [zero + 1, zero + 2], 3)
    columns = np.select(
        [kinds[0][:, None], kinds[1][:, None]],
        [np.stack([y, zero, zero], 1), np.stack([y, np.where(second, b, a), zero], 1)],
        np.stack([a, b, y], 1),
    )
    values = np.where((kinds[0] | kinds[1])[:, None], [1.0, -1.0, 0.0], [1.0, 1.0, -1.0])
    used = np.arange(3) < count[:, None]
    return count, columns[used], values[used], np.where(count == 3, 1.0, 0.0)
