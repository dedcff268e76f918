"""`brute`: every choice, one after another. The oracle that the other solvers are held to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from bitwright.core.errors import OutOfResources
from bitwright.core.problem import AT_LEAST, IntArray
from solvers.base import Deadline, Outcome, Solver
from solvers.infeasibility import conflict, limit_total, together, with_reachable
from solvers.reduce import Reduced, Row, merged_costs

#: Choices evaluated at a time, and pair terms for which it is so many: they take some 40 ms.
BLOCK, TERMS = 1 << 14, 512


def brute(reduced: Reduced, deadline: Deadline, seed: int) -> Outcome:
    """The least loss; among equals the first in lexicographic order. Raises OutOfResources past the time limit."""
    best, choice, count = np.inf, None, 0
    for block in _choices(reduced, deadline):
        count += len(block)
        value = np.where(_feasible(reduced.rows, block), _losses(reduced, block), np.inf)
        place = int(value.argmin())
        if value[place] < best:
            best, choice = float(value[place]), block[place]
    if choice is None:
        blame, reachable = together([row.name for row in reduced.rows]), {}
        with suppress(OutOfResources):  # the proof stands; without time its explanation is that of the whole
            blame = conflict(reduced, lambda names: _any(reduced, names, deadline))
            reachable = _reachable(reduced, deadline)
        return Outcome(None, blame=with_reachable(blame, reachable), reachable=reachable)
    return Outcome(choice, proof=f"enumeration of {count} choices")


def _choices(reduced: Reduced, deadline: Deadline) -> Iterator[IntArray]:
    """Blocks (m, groups) of allowed choices in lexicographic order. Raises OutOfResources past the time limit."""
    menus = [np.flatnonzero(np.isfinite(row)) for row in reduced.loss]
    radix = np.array([len(menu) for menu in menus], np.int64)
    step = np.append(np.cumprod(radix[::-1])[::-1][1:], 1)
    total = int(radix.prod())
    length = max(1, BLOCK * TERMS // max(TERMS, len(reduced.pairs)))
    for begin in range(0, total, length):
        if begin and deadline.passed:
            raise OutOfResources("time ran out in the enumeration", got=f"{begin} choices", hint="use solver 'auto'")
        index = np.arange(begin, min(total, begin + length))
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


def _reachable(reduced: Reduced, deadline: Deadline) -> dict[str, int | float]:
    """By limit, its least total with every other limit and rule held; limits for which nothing holds are left out."""
    found: dict[str, int | float] = {}
    if len(reduced.rows) == 1:
        return found
    for row in reduced.limits:
        others = tuple(other for other in reduced.rows if other is not row)
        limit = next(limit for limit in reduced.problem.limits if limit.name == row.name)
        cost = merged_costs(reduced.problem, limit)
        best, choice = np.inf, None
        for block in _choices(reduced, deadline):
            total = cost[np.arange(reduced.groups), block].sum(axis=1).astype(np.float64)
            total[~_feasible(others, block)] = np.inf
            place = int(total.argmin())
            if total[place] < best:
                best, choice = float(total[place]), block[place]
        if choice is not None:
            found[row.name] = limit_total(reduced, row, choice)
    return found


def _any(reduced: Reduced, names: tuple[str, ...], deadline: Deadline) -> bool:
    rows = tuple(row for row in reduced.rows if row.name in names)
    return any(_feasible(rows, block).any() for block in _choices(reduced, deadline))


SOLVER = Solver("brute", brute)
