"""A better lower bound for one limit: cases by how many units take a format of about one cost.

How many units do so is a whole number, which the bound of one multiplier does not see. A tree of cases splits such
numbers ("at most 17 units at level 2, or more"): every plan is of some case, so the least bound of a case bounds all
plans. A case is bounded by multipliers of its own, one of the limit and one of each level, which may be any numbers
(Lagrangian duality, where bounds on numbers of units are constraints as limits are). Formats that no plan better than
the one in hand can take, as the first bound tells, are left out (reduced cost fixing). A tree may also split by the
format of one unit, an embedding that outweighs all experts; and a case may have a modulus, by which what is left of the
limit must cost something (`core.residues`).

`cases` are numbers in a row: how many levels but the lowest there are; the least cost of each of these, rising; then
the tree, from its root on, the first side first. A split is a level (from 0) and the most units of its first side (that
of fewer); or -2, a unit and the last format that it may take on the first side. A case is -1, the multiplier of the
limit, and those of all levels; or -3, a modulus, and the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from bitwright.core.blocks import exact_sums
from bitwright.core.bound import LARGE, overflows
from bitwright.core.errors import VerificationFailed
from bitwright.core.problem import Problem
from bitwright.core.residues import ADDITIONS, paid

#: Numbers and levels that a certificate's cases may have; units x formats of the problems that may have them.
MOST, LEVELS, CELLS = 1 << 13, 128, 1 << 18
CASE, UNIT, MODULAR = -1, -2, -3
#: Share of its terms' magnitudes by which a case's bound is lowered: some roundings of 2^-53 each.
SUMMED = 2.0**-50


@dataclass(frozen=True)
class Case:
    """Units at each level: low .. high (levels,), and the multipliers: price, of the limit; of_level (levels,).

    formats: of each unit that a split is of, the first and last that it may take; modulus: 0 for none.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    formats: Mapping[int, tuple[int, int]]
    modulus: int = 0
    price: float = 0.0
    of_level: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))


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
    lowest = _least(problem, cases, multipliers.get(problem.limits[0].name, 0.0), gap, loss)
    return max(known[0], min(lowest, loss))


def _least(problem: Problem, cases: tuple[float, ...], price: float, gap: float, loss: float) -> float:
    """The least bound of a case, its rounding taken off; of what is above `loss` no more than that counts.

    price: the multiplier of the first bound; gap: a better plan loses no more above that bound.
    """
    numbers, limit = np.array(cases, np.float64), problem.limits[0]
    levels = _whole(numbers, 0) + 1
    first = numbers[1:levels]
    if levels > LEVELS or not np.isfinite(numbers).all() or len(first) != levels - 1 or (np.diff(first) <= 0).any():
        raise _unreadable(f"rising costs of at most {LEVELS} levels")
    table, cost = problem.loss.astype(np.float64), problem.resource(limit.resource).costs().astype(np.int64, copy=False)
    value = table + cost * price
    allowed = value - value.min(axis=1, keepdims=True) <= gap
    level = np.searchsorted(first, cost, side="right")
    own = [(level == one) & allowed for one in range(levels)]
    most = np.array([each.any(axis=1).sum() for each in own], np.float64)
    least = np.array([(each == allowed).all(axis=1).sum() for each in own], np.float64)
    of_all, size = np.where(allowed, table, np.inf), np.abs(np.where(allowed, table, 0.0))
    lowest, additions = math.inf, 0
    for case in _tree(numbers, Case(least, most, {}), problem):
        losses = _within(of_all, case.formats)
        if (case.low > case.high).any() or not np.isfinite(losses).any(axis=1).all():
            continue
        if overflows(problem, limit, case.price) or np.abs(case.of_level).max() > LARGE:
            raise _unreadable("multipliers with which no total overflows")
        term, of_level = cost * case.price, case.of_level[level]
        priced = losses + term + of_level
        total, _ = exact_sums(priced.min(axis=1), signed=True)
        magnitudes, _ = exact_sums((size + term + np.abs(of_level)).max(axis=1))
        given = case.of_level * np.where(case.of_level > 0, case.high, case.low)
        constant = [case.price * float(limit.value), *given.tolist()]
        rounding = SUMMED * math.fsum((magnitudes, *map(abs, constant)))
        terms = [total, -rounding, *(-one for one in constant)]
        if case.modulus:
            below = max(0.0, loss - math.fsum(terms))
            more, work = paid(priced, cost, math.floor(limit.value), case.price, case.modulus, below)
            additions += work
            if work < 0 or additions > ADDITIONS:
                raise _unreadable(f"tables of residues of at most {ADDITIONS} additions")
            terms.append(more)
        lowest = min(lowest, math.fsum(terms))
    return lowest


def _within(loss: NDArray[np.float64], formats: Mapping[int, tuple[int, int]]) -> NDArray[np.float64]:
    """The losses, inf for what a case rules out."""
    if not formats:
        return loss
    found = loss.copy()
    for unit, (first, last) in formats.items():
        found[unit, :first] = np.inf
        found[unit, last + 1 :] = np.inf
    return found


def _tree(numbers: NDArray[np.float64], root: Case, problem: Problem) -> list[Case]:
    """The cases, each with what the splits above it say."""
    levels = len(root.low)
    found, open_, at = [], [root], levels
    while open_:
        part = open_.pop()
        kind, at = _whole(numbers, at), at + 1
        if kind in (CASE, MODULAR):
            modulus = _whole(numbers, at) if kind == MODULAR else 0
            at += kind == MODULAR
            price, of_level = numbers[at : at + 1], numbers[at + 1 : at + 1 + levels]
            if len(of_level) != levels or not price[0] >= 0 or modulus < (kind == MODULAR):
                raise _unreadable("a modulus from 1 on, a price that is not negative, and one number of each level")
            found.append(replace(part, modulus=modulus, price=float(price[0]), of_level=of_level))
            at += 1 + levels
        elif kind == UNIT:
            unit, last, at = _whole(numbers, at), _whole(numbers, at + 1), at + 2
            if not 0 <= unit < problem.n:
                raise _unreadable("a unit that there is")
            begin, end = part.formats.get(unit, (0, problem.k - 1))
            sides = ((max(begin, last + 1), end), (begin, min(end, last)))
            open_ += [replace(part, formats={**part.formats, unit: side}) for side in sides]
        else:
            split, at = _whole(numbers, at), at + 1
            if not 0 <= kind < levels:
                raise _unreadable("a level that there is")
            fewer, more = part.high.copy(), part.low.copy()
            fewer[kind], more[kind] = min(part.high[kind], split), max(part.low[kind], split + 1)
            open_ += [replace(part, low=more), replace(part, high=fewer)]
    if at != len(numbers):
        raise _unreadable("nothing after the last case")
    return found


def _whole(numbers: NDArray[np.float64], at: int) -> int:
    """A whole number (below 0: what comes next, or before the first)."""
    if at >= len(numbers) or not (MODULAR <= numbers[at] <= 2**53 and numbers[at] == np.floor(numbers[at])):
        raise _unreadable("a whole number")
    return int(numbers[at])


def _unreadable(expected: str) -> VerificationFailed:
    return VerificationFailed("the certificate's cases cannot be read", expected=expected)
