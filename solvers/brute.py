"""`brute`: every choice, one after another. The oracle that the other solvers are held to."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from bitwright.core.errors import OutOfResources
from bitwright.core.problem import AT_LEAST, IntArray
from solvers.base import Deadline, Outcome, Solver
from solvers.infeasibility import conflict, limit_total, with_reachable
from solvers.reduce import Reduced, Row, merged_costs

#: Choices evaluated at a time.
BLOCK = 1 << 16


def brute(reduced: Reduced, deadline: Deadline, seed: int) -> Outcome:
    """The least loss; among equals the first in lexicographic order. Raises OutOfResources past the time limit."""
    best, choice, count = np.inf, None, 0
    for block in _choices(reduced):
        count += len(block)
        value = np.where(_feasible(reduced.rows, block), _losses(reduced, block), np.inf)
        place = int(value.argmin())
        if value[place] < best:
            best, choice = float(value[place]), block[place]
        if deadline.passed:
            raise OutOfResources("time ran out in the enumeration", got=f"{count} choices", hint="use solver 'auto'")
    if choice is None:
        blame, reachable = conflict(reduced, lambda names: _any(reduced, names)), _reachable(reduced)
        return Outcome(None, blame=with_reachable(blame, reachable), reachable=reachable)
    return Outcome(choice, proof=f"enumeration of {count} choices")


def _choices(reduced: Reduced) -> Iterator[IntArray]:
    """Blocks (m, groups) of allowed choices in lexicographic order."""
    menus = [np.flatnonzero(np.isfinite(row)) for row in reduced.loss]
    radix = np.array([len(menu) for menu in menus], np.int64)
    step = np.append(np.cumprod(radix[::-1])[::-1][1:], 1)
    total = int(radix.prod())
    for begin in range(0, total, BLOCK):
        index = np.arange(begin, min(total, begin + BLOCK))
        yield np.stack([menus[g][index // step[g] % radix[g]] for g in range(reduced.groups)], axis=1)


def _losses(reduced: Reduced, block: IntArray) -> NDArray[np.float64]:
    value = np.zeros(len(block))
    for g in range(reduced.groups):
        value += reduced.loss[g, block[:, g]]
    pairs = reduced.pairs
    for p in range(len(pairs)):
        (a, b), (i, j) = pairs.unit[p], pairs.format[p]
        value += pairs.loss[p] * ((block[:, a] == i) & (block[:, b] == j))
    return value


def _feasible(rows: tuple[Row, ...], block: IntArray) -> NDArray[np.bool_]:
    good = np.ones(len(block), bool)
    for row in rows:
        total = np.zeros(len(block), np.int64)
        for g in range(block.shape[1]):
            total += row.weight[g, block[:, g]]
        good &= total >= row.bound if row.sense == AT_LEAST else total <= row.bound
    return good


def _reachable(reduced: Reduced) -> dict[str, int | float]:
    """By limit, its least total with every other limit and rule held; limits for which nothing holds are left out."""
    found: dict[str, int | float] = {}
    if len(reduced.rows) == 1:
        return found
    for row in reduced.limits:
        others = tuple(other for other in reduced.rows if other is not row)
        limit = next(limit for limit in reduced.problem.limits if limit.name == row.name)
        cost = merged_costs(reduced.problem, limit)
        best, choice = np.inf, None
        for block in _choices(reduced):
            total = cost[np.arange(reduced.groups), block].sum(axis=1).astype(np.float64)
            total[~_feasible(others, block)] = np.inf
            place = int(total.argmin())
            if total[place] < best:
                best, choice = float(total[place]), block[place]
        if choice is not None:
            found[row.name] = limit_total(reduced, row, choice)
    return found


def _any(reduced: Reduced, names: tuple[str, ...]) -> bool:
    rows = tuple(row for row in reduced.rows if row.name in names)
    return any(_feasible(rows, block).any() for block in _choices(reduced))


SOLVER = Solver("brute", brute)
