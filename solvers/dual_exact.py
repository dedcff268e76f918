"""Exact ascent of the dual in one multiplier at a time: what the smoothed steps of `dual` leave undone with rules.

With all other multipliers held, the best one of a limit is the critical slope of the knapsack of the priced losses, and
that of a rule is an order statistic: the price at which the groups that lose least by it make up the count.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from bitwright.core.problem import AT_LEAST, IntArray
from solvers.base import Deadline
from solvers.dual import Dual, Rows
from solvers.hulls import hulls_within, relax
from solvers.reduce import Reduced, Row

Floats = NDArray[np.float64]
#: Sweeps over all rows where there are rules, where there are limits only, and the relative gain below which they end.
SWEEPS, LIMIT_SWEEPS, ENOUGH = 30, 3, 1e-10


def polished(reduced: Reduced, rows: Rows, dual: Dual, deadline: Deadline) -> Dual:
    """The dual after ascent in each multiplier in turn: never a smaller value. Its passes count reads of the table."""
    m, best = dual.multipliers.copy(), dual
    value = reduced.loss + np.tensordot(m, rows.weight, axes=1)
    touched = [np.flatnonzero(row.weight.any(axis=1)) for row in reduced.rows]
    weights = [row.weight[groups] for row, groups in zip(reduced.rows, touched, strict=True)]
    signs = [-1.0 if row.sense == AT_LEAST else 1.0 for row in reduced.rows]
    reads, passes = 1.0 + sum(map(len, touched)) / max(1, reduced.groups), float(dual.passes)
    for _ in range(SWEEPS if reduced.rules else LIMIT_SWEEPS):
        before = best.value
        passes += reads
        for r, row in enumerate(reduced.rows):
            groups, weight, unit = touched[r], weights[r], signs[r] / rows.scale[r]
            if not len(groups) or deadline.passed:
                continue
            bare = value[groups] - m[r] * unit * weight
            if r < len(reduced.limits):
                hulls = hulls_within(bare, weight, lambda: deadline.left)
                vertex = None if hulls is None else relax(hulls, row.bound)
                price = None if vertex is None else vertex.slope
            else:
                price = _rule_price(bare, weight, row)
            if price is not None:
                m[r] = price * rows.scale[r]
                value[groups] = bare + signs[r] * price * weight
        total = float(value.min(axis=1).sum()) - float(m @ rows.bound)
        if total > best.value:
            best = Dual(m.copy(), total, dual.passes)
        if deadline.passed or not best.value - before > ENOUGH * abs(best.value):
            break
    return Dual(best.multipliers, best.value, math.ceil(passes))


def _rule_price(bare: Floats, counted: IntArray, row: Row) -> float | None:
    """At least c: the c-th least regret of taking one of the formats; at most c: the (c+1)-th greatest of leaving them.

    None for rules over tie groups of several units, whose weights are not 0 and 1.
    """
    if counted.max(initial=0) > 1 or not len(bare):
        return None
    inside = np.where(counted > 0, bare, np.inf).min(axis=1)
    outside = np.where(counted > 0, np.inf, bare).min(axis=1)
    if row.sense == AT_LEAST:
        regret = np.sort(inside - outside)
        place = row.bound - 1
    else:
        regret = np.sort(outside - inside)[::-1]
        place = row.bound
    if place < 0 or place >= len(regret) or not np.isfinite(regret[place]):
        return 0.0 if place < 0 or (row.sense != AT_LEAST and place >= len(regret)) else None
    return max(0.0, float(regret[place]))
