"""What is left of the gap under several limits, by two halves: a better plan, or the proof that there is none.

At multipliers m a plan better than the one in hand pays less than its gap: the penalties of the groups that leave
their best formats, and m times what it leaves of each limit (the gap form of `repair`). So each half of those groups
pays less than the gap, and what is left of every priced limit is worth less. The choices of either half are listed; one
pairs with those of the other that leave little enough of the scarcest limit (Horowitz and Sahni 1974, with limits for
the sum).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwright.core.problem import IntArray
from solvers.base import Deadline
from solvers.dual import Rows
from solvers.reduce import Reduced, Row
from solvers.repair import reachable

Floats = NDArray[np.float64]
#: Choices listed of a half, pairs of them looked at together, and in all.
LISTED, BLOCK, PAIRED = 1 << 16, 1 << 18, 1 << 23
#: Limits and rules up to which this is tried: each is a number of every choice.
ROWS = 8
#: Searches, each with the gap of the plan before.
MEETINGS = 4
#: What rounding may do to a penalty, as a share of the largest priced loss: plans that differ by less count as equal.
SLIP = 1e-15
#: Times that the budget is halved where it allows too many choices.
NARROWED = 30


@dataclass(frozen=True, eq=False)
class Met:
    """choice: a better one, if there is one. complete: all that could be better were seen; core: groups in them."""

    choice: IntArray | None
    complete: bool
    core: int


@dataclass(frozen=True, eq=False)
class Moves:
    """Single moves from the dual's choice, by rising penalty: group, cell, penalty (q,) and use (r, q) of each row."""

    group: IntArray
    cell: IntArray
    penalty: Floats
    use: IntArray

    def side(self, keep: NDArray[np.bool_]) -> Moves:
        return Moves(self.group[keep], self.cell[keep], self.penalty[keep], self.use[:, keep])


@dataclass(frozen=True, eq=False)
class Choices:
    """Of one half: penalty (c,), use (r, c), and the moves (c, depth) of each, -1 beyond its last."""

    penalty: Floats
    use: IntArray
    moves: IntArray


def improved(
    reduced: Reduced, rows: Rows, m: Floats, choice: IntArray, deadline: Deadline
) -> tuple[IntArray, str | None]:
    """(the feasible choice or a better one, the search that proves it where one ran to its end). m (r,): of `rows`."""
    for _ in range(MEETINGS if len(rows.bound) <= ROWS else 0):
        if deadline.passed:
            break
        met = meet(reduced, rows, m, choice, deadline)
        choice = choice if met.choice is None else met.choice
        if met.complete:
            return choice, f"complete search of a core of {met.core} units"
        if met.choice is None:
            break
    return choice, None


def meet(reduced: Reduced, rows: Rows, m: Floats, choice: IntArray, deadline: Deadline) -> Met:
    """Whether a plan is better than the feasible `choice`. m (r,): multipliers of `rows`."""
    exact, value = reachable(reduced).rows, reduced.loss + np.tensordot(m, rows.weight, axes=1)
    best, price, each = value.argmin(axis=1), m / rows.scale, np.arange(len(value))
    penalty = value - value[each, best][:, None]
    gap = float(penalty[each, choice].sum() + price @ _slack(exact, choice))
    budget = gap + SLIP * float(np.abs(value[np.isfinite(value)]).max())
    moves = _moves(exact, penalty, best, budget)
    core = len(np.unique(moves.group))
    _, first, owner = np.unique(moves.group, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first, kind="stable"), kind="stable")[owner.reshape(-1)]
    halves, spent = [moves.side(rank % 2 == side) for side in (0, 1)], budget
    for _ in range(NARROWED):
        if deadline.passed:
            break
        a = _choices(halves[0], spent, deadline)
        b = None if a is None else _choices(halves[1], spent, deadline)
        if a is not None and b is not None:
            pair, whole = _best_pair(a, b, _slack(exact, best), price, gap, deadline)
            better = None if pair is None else _moved(best, halves, (a.moves[pair[0]], b.moves[pair[1]]))
            return Met(better, whole and spent == budget, core)
        spent /= 2
    return Met(None, False, core)


def _slack(exact: tuple[Row, ...], choice: IntArray) -> IntArray:
    return np.array([-row.sense * (row.bound - row.total(choice)) for row in exact], np.int64)


def _moved(choice: IntArray, halves: list[Moves], moves: tuple[IntArray, IntArray]) -> IntArray:
    choice = choice.copy()
    for half, taken in zip(halves, moves, strict=True):
        taken = taken[taken >= 0]
        choice[half.group[taken]] = half.cell[taken]
    return choice


def _moves(exact: tuple[Row, ...], penalty: Floats, best: IntArray, budget: float) -> Moves:
    group, cell = np.nonzero(penalty < budget)
    other = cell != best[group]
    group, cell = group[other], cell[other]
    order = np.argsort(penalty[group, cell], kind="stable")
    group, cell = group[order], cell[order]
    use = [-row.sense * (row.weight[group, cell] - row.weight[group, best[group]]) for row in exact]
    return Moves(group, cell, penalty[group, cell], np.array(use, np.int64).reshape(len(exact), -1))


def _choices(half: Moves, budget: float, deadline: Deadline) -> Choices | None:
    """All choices of moves of different groups whose penalties sum to less than the budget; None: too many, or late."""
    layer = Choices(np.zeros(1), np.zeros((len(half.use), 1), np.int64), np.zeros((1, 0), np.int64))
    last, layers, total = np.full(1, -1), [layer], 1
    while len(layer.penalty):
        end = np.searchsorted(half.penalty, budget - layer.penalty)
        count = np.maximum(end - last - 1, 0)
        total += int(count.sum())
        if total > LISTED or deadline.passed:
            return None
        parent = np.repeat(np.arange(len(count)), count)
        move = last[parent] + 1 + np.arange(len(parent)) - np.repeat(np.cumsum(count) - count, count)
        twice = (half.group[layer.moves[parent]] == half.group[move][:, None]).any(axis=1)
        parent, move = parent[~twice], move[~twice]
        layer = Choices(
            layer.penalty[parent] + half.penalty[move],
            layer.use[:, parent] + half.use[:, move],
            np.column_stack([layer.moves[parent], move]),
        )
        last = move
        layers.append(layer)
    depth = layers[-1].moves.shape[1]
    padded = [np.pad(x.moves, ((0, 0), (0, depth - x.moves.shape[1])), constant_values=-1) for x in layers]
    return Choices(
        np.concatenate([x.penalty for x in layers]), np.concatenate([x.use for x in layers], axis=1),
        np.concatenate(padded),
    )  # fmt: skip


def _best_pair(
    a: Choices, b: Choices, slack: IntArray, price: Floats, gap: float, deadline: Deadline
) -> tuple[tuple[int, int] | None, bool]:
    """The pair of choices that lowers the gap most (None: none does), and whether all were looked at in time."""
    windows = [int(min(2.0**62, gap / p)) if p > 0 else None for p in price.tolist()]
    options = [_window(a.use[r], slack[r] - b.use[r], windows[r]) for r in range(len(slack))]
    order, low, high = min(options, key=lambda option: int((option[2] - option[1]).sum()))
    count = high - low
    upto = np.cumsum(count)
    value_a, value_b = a.penalty - price @ a.use, b.penalty - price @ b.use
    base, best, found, begin = float(price @ slack), gap, None, 0
    while begin < len(count) and (begin == 0 or upto[begin - 1] < PAIRED) and not deadline.passed:
        done = int(upto[begin - 1]) if begin else 0
        end = max(begin + 1, int(np.searchsorted(upto, done + BLOCK, side="right")))
        mine = np.repeat(np.arange(begin, end), count[begin:end])
        first = upto[begin:end] - count[begin:end] - done
        theirs = order[low[mine] + np.arange(len(mine)) - np.repeat(first, count[begin:end])]
        begin = end
        total = value_a[theirs] + value_b[mine] + base
        near = np.flatnonzero(total < best)
        fits = (slack[:, None] - a.use[:, theirs[near]] - b.use[:, mine[near]] >= 0).all(axis=0)
        near = near[fits]
        if len(near):
            at = near[int(total[near].argmin())]
            best, found = float(total[at]), (int(theirs[at]), int(mine[at]))
    return found, begin == len(count)


def _window(use: IntArray, room: IntArray, width: int | None) -> tuple[IntArray, IntArray, IntArray]:
    """(order of `use`, from where, to where in it) leave between 0 and `width` (None: whatever) of each room."""
    order = np.argsort(use, kind="stable")
    high = np.searchsorted(use[order], room, side="right")
    return order, np.zeros_like(high) if width is None else np.searchsorted(use[order], room - width), high
