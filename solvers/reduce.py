"""Reduction: ties merged, losses scaled by a power of two, every limit and rule one integer row over the tie groups.

Exact by construction: a tie group pays the sum of its units' losses and costs and may not take what any unit may not
(DESIGN section 7). Float costs are put on an integer grid of 2^61 steps over the largest total, so their summed
rounding stays below the checker's own tolerance (`certificate.ROUNDING`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.core.blocks import row_blocks
from bitwright.core.certificate import ROUNDING
from bitwright.core.problem import AT_LEAST, IntArray, Limit, Pairs, Problem, least_and_most, much

#: Largest total of a float resource on its integer grid.
GRID_BITS = 61
INT_TOP = 2**63 - 1
#: Float costs are cut off at this many times their limit.
BEYOND = 1.5


@dataclass(frozen=True, eq=False)
class Row:
    """sum over groups of weight[g, x_g] <= bound (sense -1) or >= bound (sense +1), in integers.

    One original unit of the resource is 2^shift grid steps; the original multiplier is 2^shift times that of the grid.
    grid: whether this is a float resource on a grid (its totals are then rounded). paid: what every choice pays, where
    that is much (`problem.MUCH`); weight and bound are without it.
    """

    name: str
    weight: IntArray
    bound: int
    sense: int = -1
    shift: int = 0
    grid: bool = False
    paid: int = 0

    def total(self, choice: IntArray) -> int:
        return int(self.weight[np.arange(len(choice)), choice].sum())

    def holds(self, choice: IntArray) -> bool:
        total = self.total(choice)
        return total >= self.bound if self.sense == AT_LEAST else total <= self.bound


@dataclass(frozen=True, eq=False)
class Reduced:
    """loss: (groups, k) float64 times 2^-exponent, inf = forbidden. `limits` and `rules` are integer rows."""

    problem: Problem
    loss: NDArray[np.float64]
    exponent: int
    limits: tuple[Row, ...]
    rules: tuple[Row, ...]
    pairs: Pairs

    @property
    def groups(self) -> int:
        return int(self.loss.shape[0])

    @property
    def k(self) -> int:
        return int(self.loss.shape[1])

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        return (*self.limits, *self.rules)

    def expand(self, choice: IntArray) -> IntArray:
        """(n,) choice of the original units."""
        return (
            choice.astype(np.int64)[self.problem.group_index]
            if self.problem.tie is not None
            else choice.astype(np.int64)
        )

    def multiplier(self, row: Row, value: float) -> float:
        """A multiplier of a grid row and scaled losses, in the units of the original problem."""
        try:
            return max(0.0, math.ldexp(float(value), self.exponent + row.shift))
        except OverflowError:
            return 0.0  # still a valid multiplier; the bound is weaker

    def objective(self, choice: IntArray) -> float:
        """Scaled loss of a choice of the groups, pair terms included (plain float64, for comparing)."""
        return float(self.loss[np.arange(self.groups), choice].sum()) + self.pairs.total(choice)


def reduce_problem(problem: Problem) -> Reduced:
    merge = _Merge(problem)
    loss = merge.sum(problem.loss.astype(np.float64))
    pairs = _merge_pairs(problem, loss)
    exponent = _exponent(loss, pairs)
    scaled = np.ldexp(loss, -exponent, out=loss)
    pairs = Pairs(pairs.unit, pairs.format, np.ldexp(pairs.loss, -exponent))
    limits = tuple(_limit_row(problem, limit, merge, scaled) for limit in problem.limits)
    rules = []
    for index, rule in enumerate(problem.rules):
        weight = np.zeros((problem.n, problem.k), np.int64)
        weight[np.ix_(rule.units, rule.formats)] = 1
        rules.append(Row(f"rule:{index}", merge.sum(weight), rule.count, rule.sense))
    return Reduced(problem, scaled, exponent, limits, tuple(rules), pairs)


def divisor(values: IntArray) -> int:
    """The greatest common divisor; most of them need not be looked at once it is 1."""
    found = 0
    for begin in range(0, len(values), 1 << 12):
        found = math.gcd(found, int(np.gcd.reduce(values[begin : begin + (1 << 12)])))
        if found == 1:
            break
    return found


class _Merge:
    """Sums the rows of each tie group: exact for integers, in float64 for losses."""

    def __init__(self, problem: Problem) -> None:
        self.order: IntArray | None = None
        if problem.tie is not None:
            group = problem.group_index
            self.order = np.argsort(group, kind="stable")
            self.start = np.searchsorted(group[self.order], np.arange(problem.groups))

    def sum(self, cells: NDArray[Any]) -> NDArray[Any]:
        if self.order is None:
            return cells
        return np.asarray(np.add.reduceat(cells[self.order], self.start, axis=0))


def _exponent(loss: NDArray[np.float64], pairs: Pairs) -> int:
    """Middle of the exponents in use, so that neither the largest nor the smallest loss leaves float64's range."""
    low, high = np.inf, 0.0
    for cells in (*(loss[rows] for rows in row_blocks(len(loss))), pairs.loss):
        sizes = np.abs(cells)
        sizes = sizes[(sizes > 0) & np.isfinite(sizes)]
        low, high = min(low, float(sizes.min(initial=np.inf))), max(high, float(sizes.max(initial=0.0)))
    return (math.frexp(low)[1] + math.frexp(high)[1]) // 2 if high > 0 else 0


def merged_costs(problem: Problem, limit: Limit) -> NDArray[Any]:
    """(groups, k) what each format of each tie group adds to the total of a limit, in original units."""
    return _merged(problem, limit, _Merge(problem))


def _merged(problem: Problem, limit: Limit, merge: _Merge) -> NDArray[Any]:
    costs = problem.resource(limit.resource).costs()
    if limit.units is not None:
        masked = np.zeros_like(costs)
        masked[limit.units] = costs[limit.units]
        costs = masked
    return merge.sum(costs)


def _limit_row(problem: Problem, limit: Limit, merge: _Merge, loss: NDArray[np.float64]) -> Row:
    costs = _merged(problem, limit, merge)
    if problem.resource(limit.resource).integral:
        bound = _bound(limit.value, None)
        least, most = least_and_most(costs, loss)
        if not much(least, most):
            return Row(limit.name, costs, bound)
        paid = int(least.sum())
        return Row(limit.name, np.maximum(costs - least[:, None], 0), bound - paid, paid=paid)
    if limit.value > 0:
        # A cell that breaks the limit alone breaks it at half as much too; its size must not coarsen the grid.
        costs = np.minimum(costs, BEYOND * float(limit.value))
    top = float(costs.max(axis=1).sum())
    shift = GRID_BITS - math.frexp(top)[1] if top > 0 else 0
    weight = np.rint(np.ldexp(np.ldexp(costs, shift // 2), shift - shift // 2)).astype(np.int64)
    weight = np.maximum(weight, costs > 0)  # what costs anything must not become free under a limit of 0
    return Row(limit.name, weight, _bound(limit.value, shift), shift=shift, grid=True)


def _bound(value: int | float, shift: int | None) -> int:
    """A limit as an integer bound on grid totals; `shift` is None for an integral resource."""
    if shift is None:
        return max(-1, min(INT_TOP, math.floor(value)))
    if value <= 0:
        return 0 if value == 0 else -1
    # Half of what the checker forgives: nothing that the checker accepts exactly is lost to the grid.
    mantissa, power = math.frexp(value + ROUNDING / 2 * value)
    return INT_TOP if power + shift > 62 else math.floor(math.ldexp(mantissa, power + shift))


def rebound(reduced: Reduced, value: int | float) -> Reduced:
    """The same reduced problem (of one limit) with another value of that limit; costs nothing but the new Problem."""
    row = reduced.limits[0]
    problem = reduced.problem.with_limit(row.name, value)
    bound = _bound(value, row.shift if row.grid else None)
    return replace(reduced, problem=problem, limits=(replace(row, bound=bound - row.paid),))


def _merge_pairs(problem: Problem, loss: NDArray[np.float64]) -> Pairs:
    """Pair terms between groups; a pair inside one group is a cell of that group's loss (added in place) or void."""
    pairs = problem.pairs
    if not len(pairs):
        return pairs
    unit = problem.group_index[pairs.unit]
    inside = unit[:, 0] == unit[:, 1]
    same = inside & (pairs.format[:, 0] == pairs.format[:, 1])
    np.add.at(loss, (unit[same, 0], pairs.format[same, 0]), pairs.loss[same])
    keep = ~inside & (pairs.loss != 0)
    return Pairs(unit[keep], pairs.format[keep], pairs.loss[keep])
