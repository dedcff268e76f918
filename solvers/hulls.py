"""Lower convex hulls of every group's (cost, loss) points, and the linear relaxation that they give.

The LP relaxation of the multiple-choice knapsack takes hull steps by falling slope until the limit is reached
(Sinha and Zoltners 1979; Dyer-Zemel; research/05 section 4). Everything here is plain numpy: it is the oracle of the
compiled path and the fallback where no compiler exists.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwright.core.problem import IntArray

FloatVector = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Steps:
    """Hull steps of all groups, steepest first; steps of one group stand in their own order.

    group, before, after: which group moves from which format to which; dcost > 0 (exact), dloss < 0,
    slope = -dloss/dcost.
    """

    group: IntArray
    before: IntArray
    after: IntArray
    dcost: IntArray
    dloss: FloatVector
    slope: FloatVector

    def __len__(self) -> int:
        return len(self.group)


@dataclass(frozen=True, eq=False)
class Hulls:
    """cheapest: each group's least-cost allowed format (least loss among equals); its totals; the steps from there."""

    cheapest: IntArray
    cost: int
    loss: float
    steps: Steps


@dataclass(frozen=True, eq=False)
class Relaxation:
    """LP optimum at one limit: `choice` takes every step before the critical one, `slack` of the limit is left.

    slope: the critical slope (0 when everything fits), the multiplier of the limit. taken: steps taken.
    """

    choice: IntArray
    slack: int
    slope: float
    taken: int


def build_hulls(loss: FloatVector, cost: IntArray) -> Hulls:
    """loss (g, k) with inf = forbidden, cost (g, k) int64. Every group has an allowed format."""
    found = hulls_within(loss, cost, lambda: math.inf)
    assert found is not None
    return found


def hulls_within(loss: FloatVector, cost: IntArray, left: Callable[[], float]) -> Hulls | None:
    """`build_hulls`, or None where the seconds left, asked for in each round of the walk, are too few."""
    begin = time.monotonic()
    rows = np.arange(len(loss))
    allowed = np.isfinite(loss)
    low = np.where(allowed, cost, np.iinfo(np.int64).max).min(axis=1)
    cheapest = np.where(allowed & (cost == low[:, None]), loss, np.inf).argmin(axis=1)
    parts = _walk(loss, cost, cheapest, left)
    if left() < 0.7 * (time.monotonic() - begin):  # what sorting the steps takes, about
        return None
    steps = _sorted(parts)
    return Hulls(cheapest, int(low.sum()), float(loss[rows, cheapest].sum()), steps)


def _walk(loss: FloatVector, cost: IntArray, start: IntArray, left: Callable[[], float]) -> list[Steps]:
    """Gift wrapping from the cheapest point, all groups at once: at most k - 1 rounds, fewer where no time is left."""
    parts = []
    active, here = np.arange(len(loss)), start
    last = np.full(len(loss), np.inf)
    while active.size and left() > 0:
        lo, co, at = loss[active], cost[active], np.arange(len(active))
        dcost = co - co[at, here][:, None]
        dloss = lo - lo[at, here][:, None]
        slope = np.where(dcost > 0, -dloss / np.maximum(dcost, 1), -np.inf)
        best = slope.max(axis=1)
        # Collinear points are merged into one step: the dearest of equal slopes.
        after = np.where(slope == best[:, None], dcost, -1).argmax(axis=1)
        go = best > 0
        active, at, after, best = active[go], at[go], after[go], np.minimum(best[go], last[active[go]])
        parts.append(Steps(active, here[go], after, dcost[at, after], dloss[at, after], best))
        last[active] = best
        here = after
    return parts


def _sorted(parts: list[Steps]) -> Steps:
    names = ("group", "before", "after", "dcost", "dloss", "slope")
    joined = [np.concatenate([getattr(part, name) for part in parts]) for name in names]
    order = np.argsort(-joined[5], kind="stable")
    return Steps(*(column[order] for column in joined))


def relax(hulls: Hulls, limit: int) -> Relaxation | None:
    """The LP relaxation at `limit`; None when even the cheapest formats do not fit."""
    room = limit - hulls.cost
    if room < 0:
        return None
    steps = hulls.steps
    spent = np.cumsum(steps.dcost)
    taken = int(np.searchsorted(spent, room, side="right"))
    choice = hulls.cheapest.copy()
    # Slopes fall within a group, so the last write is the deepest step.
    choice[steps.group[:taken]] = steps.after[:taken]
    slack = room - (int(spent[taken - 1]) if taken else 0)
    slope = float(steps.slope[taken]) if taken < len(steps) else 0.0
    return Relaxation(choice, slack, slope, taken)
