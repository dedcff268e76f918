"""Plans for problems with pair terms: local search by single moves and exchanges, and branch and bound."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bitwright.core.problem import AT_LEAST, IntArray
from solvers.base import Deadline
from solvers.pair_field import Field

Floats = NDArray[np.float64]
#: Cheapest single moves that are paired into exchanges; kicks of the iterated search; groups moved by a kick.
EXCHANGED, KICKS, KICKED = 96, 40, 3


@dataclass(frozen=True, eq=False)
class Room:
    """Limits and rules as weight . x <= bound in integers: weight (r, g, k), bound (r,)."""

    weight: IntArray
    bound: IntArray

    @staticmethod
    def of(field: Field) -> Room:
        rows, shape = field.reduced.rows, field.loss.shape
        sign = [-1 if row.sense == AT_LEAST else 1 for row in rows]
        weight = np.array([s * row.weight for s, row in zip(sign, rows, strict=True)], np.int64).reshape(-1, *shape)
        return Room(weight, np.array([s * row.bound for s, row in zip(sign, rows, strict=True)], np.int64))

    def slack(self, choice: IntArray) -> IntArray:
        return np.asarray(self.bound - self.weight[:, np.arange(len(choice)), choice].sum(axis=1))


def local_search(field: Field, start: IntArray, price: Floats, deadline: Deadline, seed: int) -> IntArray:
    """The best feasible choice found from the feasible `start`; the same for the same seed unless time runs out.

    price (g, k): multipliers times weights, which ranks the moves that free room.
    """
    room, rng = Room.of(field), np.random.default_rng(seed)
    best = _descend(field, room, start, price, deadline)
    value = field.value(best)
    for _ in range(KICKS):
        if deadline.passed:
            break
        other = _descend(field, room, _kick(field, room, best, rng), price, deadline)
        gained = value - field.value(other)
        if gained > 1e-12 * abs(value):
            best, value = other, value - gained
    return best


def _kick(field: Field, room: Room, choice: IntArray, rng: np.random.Generator) -> IntArray:
    """A few random feasible single moves."""
    choice, slack = choice.copy(), room.slack(choice)
    for _ in range(KICKED):
        g = int(rng.integers(len(choice)))
        use = room.weight[:, g, :] - room.weight[:, g, choice[g]][:, None]
        may = np.flatnonzero(np.isfinite(field.loss[g]) & (use <= slack[:, None]).all(axis=0))
        j = int(rng.choice(may))
        slack, choice[g] = slack - use[:, j], j
    return choice


def _descend(field: Field, room: Room, choice: IntArray, price: Floats, deadline: Deadline) -> IntArray:
    choice, slack, each = choice.copy(), room.slack(choice), np.arange(len(choice))
    around = field.around(choice)
    while not deadline.passed:
        change = around - around[each, choice][:, None]
        use = room.weight - room.weight[:, each, choice][:, :, None]
        fits = (use <= slack[:, None, None]).all(axis=0)
        single = np.where(fits, change, np.inf)
        g, j = divmod(int(single.argmin()), field.loss.shape[1])
        moves = [(g, j)]
        tiny = 1e-13 * float(np.abs(around[each, choice]).max())
        if not single[g, j] < -tiny:
            found = _exchange(field, choice, slack, change, use, price)
            if found is None:
                break
            moves = found
        for g, j in moves:
            slack = slack - use[:, g, j]
            others, after = field.rows(g, j)
            around[others] += after - field.rows(g, int(choice[g]))[1]
            choice[g] = j
    return choice


def _exchange(
    field: Field, choice: IntArray, slack: IntArray, change: Floats, use: IntArray, price: Floats
) -> list[tuple[int, int]] | None:
    """Two single moves of different groups that fit together and lower the loss most."""
    k = field.loss.shape[1]
    merit = change + price - price[np.arange(len(choice)), choice][:, None]
    merit[np.arange(len(choice)), choice] = np.inf
    flat = merit.ravel()
    count = min(EXCHANGED, int(np.isfinite(flat).sum()))
    if count < 2:
        return None
    keep = np.argsort(flat, kind="stable")[:count]
    g, j = np.divmod(keep, k)
    alone = change[g, j]
    value = alone[:, None] + alone[None, :] + _together(field, choice, g, j)
    total = use[:, g, j][:, :, None] + use[:, g, j][:, None, :]
    value[(g[:, None] == g[None, :]) | (total > slack[:, None, None]).any(axis=0)] = np.inf
    p, q = divmod(int(value.argmin()), count)
    if not value[p, q] < -1e-12 * float(np.abs(alone).max()):
        return None
    return [(int(g[p]), int(j[p])), (int(g[q]), int(j[q]))]


def _together(field: Field, choice: IntArray, g: IntArray, j: IntArray) -> Floats:
    """(m, m): what two moves change in the table that they share beyond what each changes alone."""
    extra = np.zeros((len(g), len(g)))
    edge = field.place[g[:, None], g[None, :]]
    p, q = np.nonzero((edge >= 0) & (g[:, None] < g[None, :]))
    table, (a, b) = field.table[edge[p, q]], (g[p], g[q])
    each = np.arange(len(p))
    both = table[each, j[p], j[q]] - table[each, choice[a], j[q]] - table[each, j[p], choice[b]]
    extra[p, q] = both + table[each, choice[a], choice[b]]
    return extra + extra.T


@dataclass(frozen=True, eq=False)
class Branched:
    """choice: the best found, or the incumbent (None: nothing feasible). complete: the search ran to its end."""

    choice: IntArray | None
    complete: bool
    nodes: int


def branch(field: Field, price: Floats, constant: float, incumbent: IntArray | None, deadline: Deadline) -> Branched:
    """Depth first; a node's bound is that of the multipliers and of tables whose least cells are taken out.

    field: after its messages were moved. price, constant: multipliers times weights and bounds.
    """
    return _Tree(field, price, constant, incumbent, deadline).run()


class _Tree:
    """The one place with state: best choice, its value, and the clock."""

    def __init__(
        self, field: Field, price: Floats, constant: float, incumbent: IntArray | None, deadline: Deadline
    ) -> None:
        floors = field.floors()
        self.field, self.deadline = field, deadline
        self.room = Room.of(field)
        self.above = replace(field, table=field.table - floors[:, None, None])
        self.price = price
        self.base = float(floors.sum()) - constant
        self.best = incumbent
        self.value = np.inf if incumbent is None else field.value(incumbent)
        self.slip = 1e-13 * (float((np.where(np.isfinite(field.loss), np.abs(field.loss), 0.0)).max(axis=1).sum())
                             + float(np.abs(field.table).max(axis=(1, 2)).sum()))  # fmt: skip
        self.nodes, self.stopped = 0, False

    def run(self) -> Branched:
        groups = self.field.loss.shape[0]
        self._down(self.field.loss + self.price, np.full(groups, -1), self.room.bound.copy(), self.base)
        return Branched(self.best, not self.stopped, self.nodes)

    def _down(self, cost: Floats, choice: IntArray, slack: IntArray, done: float) -> None:
        self.nodes += 1
        if self.deadline.passed:
            self.stopped = True
            return
        open_ = np.flatnonzero(choice < 0)
        if not len(open_):
            value = self.field.value(choice)
            if value < self.value:
                self.best, self.value = choice.copy(), value
            return
        cost = self._pruned(cost, open_, slack)
        rest = cost[open_]
        least = rest.min(axis=1)
        if not np.isfinite(least).all() or done + float(least.sum()) >= self.value - self.slip:
            return
        second = np.partition(rest, 1, axis=1)[:, 1] if rest.shape[1] > 1 else np.full(len(open_), np.inf)
        g = int(open_[int((second - least).argmax())])
        for j in np.argsort(cost[g], kind="stable").tolist():
            if not np.isfinite(cost[g, j]) or self.stopped:
                break
            further = cost.copy()
            others, table = self.above.rows(g, j)
            further[others] += table
            choice[g] = j
            self._down(further, choice, slack - self.room.weight[:, g, j], done + float(cost[g, j]))
            choice[g] = -1

    def _pruned(self, cost: Floats, open_: IntArray, slack: IntArray) -> Floats:
        """inf in the cells that a limit or rule no longer allows, whatever the others take."""
        if not len(slack):
            return cost
        allowed = np.isfinite(cost[open_])
        weight = self.room.weight[:, open_, :]
        least = np.where(allowed, weight, np.iinfo(np.int64).max).min(axis=2)
        empty = ~allowed.any(axis=1)
        if empty.any():
            return cost
        spare = slack - least.sum(axis=1)
        broken = (weight - least[:, :, None] > spare[:, None, None]).any(axis=0)
        cost = cost.copy()
        cost[open_] = np.where(broken, np.inf, cost[open_])
        return cost
