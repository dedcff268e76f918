"""The core of a knapsack and the plain numpy search over it (the oracle of the compiled one)."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwright.core.problem import IntArray


@dataclass(frozen=True, eq=False)
class Core:
    """Deviations that may matter, group by group (CSR `start`), groups by rising least
    penalty per unit of cost. That order lets the completion bounds close fast: 10 to 1000 times fewer states than by
    penalty (measured on the families of research/05, benchmarks/solvers.py).

    Cell q: group[q] takes format[q], which costs dcost[q] more and adds penalty[q] > 0 (or 0) to the gap.
    """

    start: IntArray
    group: IntArray
    format: IntArray
    dcost: IntArray
    penalty: NDArray[np.float64]

    @property
    def rows(self) -> int:
        return len(self.start) - 1

    @staticmethod
    def build(penalty: NDArray[np.float64], dcost: IntArray, choice: IntArray, gap: float) -> Core:
        """Every cell but the chosen one with penalty below `gap`; cells of the chosen cost are never better."""
        group, cell = np.nonzero((penalty < gap) & (dcost != 0))
        value = penalty[group, cell]
        rate = value / np.abs(dcost[group, cell])
        owners, inverse = np.unique(group, return_inverse=True)
        least = np.full(len(owners), np.inf)
        np.minimum.at(least, inverse, rate)
        rank = np.empty(len(owners), np.int64)
        rank[np.argsort(least, kind="stable")] = np.arange(len(owners))
        order = np.argsort(rank[inverse], kind="stable")
        start = np.searchsorted(rank[inverse][order], np.arange(len(owners) + 1)).astype(np.int64)
        group, cell = group[order], cell[order]
        return Core(start, group, cell, dcost[group, cell], value[order])

    def head(self, rows: int) -> Core:
        """The first `rows` groups."""
        if rows >= self.rows:
            return self
        end = int(self.start[rows])
        return Core(self.start[: rows + 1], self.group[:end], self.format[:end], self.dcost[:end], self.penalty[:end])


@dataclass(frozen=True, eq=False)
class Found:
    """gap: the least found. cells: deviations of the core that give it (None: nothing better than what was given).

    complete: no deviation of the given core gives less. states: most held at once; work: states expanded.
    """

    gap: float
    cells: IntArray | None
    complete: bool
    states: int
    work: int


@dataclass(frozen=True)
class Effort:
    """Bounds of one search: states held, states expanded, a gap that counts as zero, and the clock."""

    states: int
    work: int
    tiny: float
    end: float


def suffix_bounds(core: Core) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """For groups t..: least penalty, least penalty per unit of cost added, and per unit of cost saved."""
    rate = core.penalty / np.abs(core.dcost)
    pieces = (core.penalty, np.where(core.dcost > 0, rate, np.inf), np.where(core.dcost < 0, rate, np.inf))
    bounds = []
    for piece in pieces:
        least = np.minimum.reduceat(piece, core.start[:-1]) if core.rows else np.zeros(0)
        bounds.append(np.append(np.minimum.accumulate(least[::-1])[::-1], np.inf))
    return bounds[0], bounds[1], bounds[2]


def search_numpy(core: Core, slope: float, slack: int, gap: float, effort: Effort) -> Found:
    """Dynamic programming over (extra cost, penalty) with dominance and completion bounds."""
    least, up, down = suffix_bounds(core)
    cost, value = np.zeros(1, np.int64), np.zeros(1)
    layers: list[tuple[IntArray, IntArray]] = []
    best, trace, complete, most, work = gap, None, True, 1, 0
    for t in range(core.rows):
        cells = np.arange(core.start[t], core.start[t + 1])
        new_cost, new_value, parent, cell = _extend(core, cells, cost, value)
        work += len(new_cost)
        kept = _undominated(new_cost, new_value, slope)
        new_cost, new_value, parent, cell = new_cost[kept], new_value[kept], parent[kept], cell[kept]
        room = (slack - new_cost).astype(np.float64)
        final = np.where(room >= 0, new_value + slope * room, np.inf)
        if final.min(initial=np.inf) < best:
            last = int(final.argmin())
            best, trace = float(final[last]), (t, int(parent[last]), int(cell[last]))
        with np.errstate(invalid="ignore"):
            ahead = np.where(room >= 0, room * min(slope, up[t + 1]), -room * down[t + 1])
        ahead = np.where(room == 0, 0.0, ahead)
        bound = new_value + np.maximum(ahead, least[t + 1])
        alive = np.flatnonzero(bound < best)
        if len(alive) > effort.states:
            complete = False
            alive = np.sort(alive[np.argsort(bound[alive], kind="stable")[: effort.states]])
        layers.append((parent[alive], cell[alive]))
        cost, value = new_cost[alive], new_value[alive]
        most = max(most, len(alive))
        if not len(alive) or best <= effort.tiny:
            break
        if work > effort.work or time.monotonic() > effort.end:
            complete = complete and t + 1 == core.rows
            break
    return Found(best, None if trace is None else _trace(layers, trace), complete or best <= effort.tiny, most, work)


def _extend(
    core: Core, cells: IntArray, cost: IntArray, value: NDArray[np.float64]
) -> tuple[IntArray, NDArray[np.float64], IntArray, IntArray]:
    """All states after one more group: (cost, value, parent state, cell or -1), by rising cost."""
    steps = np.append(0, core.dcost[cells])
    pens = np.append(0.0, core.penalty[cells])
    new_cost = (cost[None, :] + steps[:, None]).ravel()
    new_value = (value[None, :] + pens[:, None]).ravel()
    parent = np.tile(np.arange(len(cost)), len(steps))
    cell = np.repeat(np.append(-1, cells), len(cost))
    order = np.lexsort((new_value, new_cost))
    return new_cost[order], new_value[order], parent[order], cell[order]


def _undominated(cost: IntArray, value: NDArray[np.float64], slope: float) -> IntArray:
    """States (by rising cost) whose true loss is below that of every cheaper state."""
    loss = value - slope * cost
    before = np.concatenate([[np.inf], np.minimum.accumulate(loss)[:-1]])
    return np.flatnonzero(loss < before)


def _trace(layers: list[tuple[IntArray, IntArray]], last: tuple[int, int, int]) -> IntArray:
    """Cells of the path that ends in `last` = (layer, parent, cell)."""
    t, parent, cell = last
    path = [cell]
    for layer in range(t - 1, -1, -1):
        parents, cells = layers[layer]
        path.append(int(cells[parent]))
        parent = int(parents[parent])
    return np.array([c for c in path if c >= 0], np.int64)
