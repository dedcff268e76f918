"""A better lower bound for one limit: cases by how many units take a format of about one cost.

How many units do so is a whole number, which the bound of one multiplier does not see. A tree of cases splits such
numbers ("at most 17 units at level 2, or more"): every plan is of some case, so the least bound of a case bounds all
plans. A case is bounded by multipliers of its own, one of the limit and one of each level, which may be any numbers
(Lagrangian duality, where bounds on numbers of units are constraints as limits are). Formats that no plan better than
the one in hand can take, as the first bound tells, are left out (reduced cost fixing).

`cases` are numbers in a row: how many levels but the lowest there are; the least cost of each of these, rising; then
the tree, from its root on, the side of fewer units first. A split is a level (from 0) and the most units of its first
side; a case is -1, the multiplier of the limit, and those of all levels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwright.core.blocks import exact_sums
from bitwright.core.bound import LARGE, overflows
from bitwright.core.errors import VerificationFailed
from bitwright.core.problem import Problem

#: Numbers and levels that a certificate's cases may have; units x formats of the problems that may have them.
MOST, LEVELS, CELLS = 1 << 13, 128, 1 << 18
CASE = -1
#: Share of its terms' magnitudes by which a case's bound is lowered: some roundings of 2^-53 each.
SUMMED = 2.0**-50


@dataclass(frozen=True)
class Case:
    """Units at each level: low .. high (levels,), and the multipliers: price, of the limit; of_level (levels,)."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    price: float
    of_level: NDArray[np.float64]


def fits(problem: Problem) -> bool:
    """Whether a problem is one limit of whole costs over all units, and nothing else."""
    one = len(problem.limits) == 1 and problem.limits[0].units is None and problem.tie is None
    if not one or problem.rules or len(problem.pairs) or problem.n * problem.k > CELLS:
        return False
    return problem.resource(problem.limits[0].resource).integral


def raised(
    problem: Problem,
    cases: tuple[float, ...],
    multipliers: Mapping[str, float],
    loss: float,
    known: tuple[float, float],
    rounding: float,
) -> float:
    """The bound by the cases, or the known one where that is higher; no higher than the loss of the plan in hand.

    known: (bound, scale of its rounding) by the multipliers; rounding: of a bound, as a share of its scale. Raises
    VerificationFailed for numbers that are no tree of cases.
    """
    if not fits(problem) or len(cases) > MOST:
        raise VerificationFailed("the certificate's cases do not fit the problem", got=f"{len(cases)} numbers")
    gap = loss - known[0] + rounding * max(known[1], abs(loss))
    lowest = _least(problem, cases, multipliers.get(problem.limits[0].name, 0.0), gap)
    return max(known[0], min(lowest, loss))


def _least(problem: Problem, cases: tuple[float, ...], price: float, gap: float) -> float:
    """The least bound of a case, its rounding taken off.

    price: the multiplier of the first bound; gap: a better plan loses no more above that bound.
    """
    numbers, limit = np.array(cases, np.float64), problem.limits[0]
    levels = _whole(numbers, 0) + 1
    first = numbers[1:levels]
    if levels > LEVELS or not np.isfinite(numbers).all() or len(first) != levels - 1 or (np.diff(first) <= 0).any():
        raise _unreadable(f"rising costs of at most {LEVELS} levels")
    table, cost = problem.loss.astype(np.float64), problem.resource(limit.resource).costs()
    value = table + cost * price
    allowed = value - value.min(axis=1, keepdims=True) <= gap
    level = np.searchsorted(first, cost, side="right")
    own = [(level == one) & allowed for one in range(levels)]
    most = np.array([each.any(axis=1).sum() for each in own], np.float64)
    least = np.array([(each == allowed).all(axis=1).sum() for each in own], np.float64)
    loss, size = np.where(allowed, table, np.inf), np.abs(np.where(allowed, table, 0.0))
    lowest = math.inf
    for case in _tree(numbers, levels, least, most):
        if (case.low > case.high).any():
            continue
        if overflows(problem, limit, case.price) or np.abs(case.of_level).max() > LARGE:
            raise _unreadable("multipliers with which no total overflows")
        term, of_level = cost * case.price, case.of_level[level]
        total, _ = exact_sums((loss + term + of_level).min(axis=1), signed=True)
        magnitudes, _ = exact_sums((size + term + np.abs(of_level)).max(axis=1))
        given = case.of_level * np.where(case.of_level > 0, case.high, case.low)
        constant = [case.price * float(limit.value), *given.tolist()]
        rounding = SUMMED * math.fsum((magnitudes, *map(abs, constant)))
        lowest = min(lowest, math.fsum((total, -rounding, *(-one for one in constant))))
    return lowest


def _tree(numbers: NDArray[np.float64], levels: int, low: NDArray[np.float64], high: NDArray[np.float64]) -> list[Case]:
    """The cases, each with the bounds of the splits above it."""
    found, open_, at = [], [(low, high)], levels
    while open_:
        low, high = open_.pop()
        if at >= len(numbers):
            raise _unreadable("a case or a split")
        if numbers[at] == CASE:
            price, of_level = numbers[at + 1 : at + 2], numbers[at + 2 : at + 2 + levels]
            if len(of_level) != levels or not price[0] >= 0:
                raise _unreadable("a price that is not negative, and one number of each level")
            found.append(Case(low, high, float(price[0]), of_level))
            at += 2 + levels
            continue
        level, split = _whole(numbers, at), _whole(numbers, at + 1)
        if level >= levels:
            raise _unreadable("a level that there is")
        fewer, more = high.copy(), low.copy()
        fewer[level], more[level] = min(high[level], split), max(low[level], split + 1)
        open_ += [(more, high), (low, fewer)]
        at += 2
    if at != len(numbers):
        raise _unreadable("nothing after the last case")
    return found


def _whole(numbers: NDArray[np.float64], at: int) -> int:
    """A whole number from 0 on (a split may come before it: -1)."""
    if at >= len(numbers) or not (-1 <= numbers[at] <= 2**53 and numbers[at] == np.floor(numbers[at])):
        raise _unreadable("a whole number")
    return int(numbers[at])


def _unreadable(expected: str) -> VerificationFailed:
    return VerificationFailed("the certificate's cases cannot be read", expected=expected)
