"""Lower convex hulls of every group's (cost, loss) points, and the linear relaxation that they give.

The LP relaxation of the multiple-choice knapsack takes hull steps by falling slope until the limit is reached
(Sinha and Zoltners 1979; Dyer-Zemel; research/05 section 4). Everything here is plain numpy: it is the oracle of the
compiled path and the fallback where no compiler exists.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bitwright.core.problem import IntArray

FloatVector = NDArray[np.float64]
#: Rows walked together: what is made of them stays in the processor's cache, and the clock is looked at between them.
BLOCK = 1 << 13
#: What sorting the steps takes, over what finding them takes.
SORTING = 2.0


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
    """cheapest: each group's least-cost allowed format (least loss among equals); its totals; the steps from there.

    seconds: what it took to find them, on the caller's clock.
    """

    cheapest: IntArray
    cost: int
    loss: float
    steps: Steps
    seconds: float = 0.0


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
    """`build_hulls`, or None where the seconds left, asked for in each block of rows, are too few."""
    begin = time.monotonic()
    cheapest, total = np.empty(len(loss), np.int64), 0
    rounds: list[list[Steps]] = []
    for first in range(0, len(loss), BLOCK):
        if not left() > 0:
            return None
        rows = slice(first, first + BLOCK)
        cheapest[rows], least = _cheapest(loss[rows], cost[rows])
        total += least
        for number, part in enumerate(_walk(loss[rows], cost[rows], cheapest[rows])):
            if number == len(rounds):
                rounds.append([])
            rounds[number].append(replace(part, group=part.group + first))
    if left() < SORTING * (time.monotonic() - begin):
        return None
    steps = _sorted([part for parts in rounds for part in parts])
    return Hulls(cheapest, total, float(loss[np.arange(len(loss)), cheapest].sum()), steps, time.monotonic() - begin)


def _cheapest(loss: FloatVector, cost: IntArray) -> tuple[IntArray, int]:
    """Least-cost allowed format of each group, least loss among equals, and what they cost together."""
    allowed = np.isfinite(loss)
    low = np.where(allowed, cost, np.iinfo(np.int64).max).min(axis=1)
    return np.where(allowed & (cost == low[:, None]), loss, np.inf).argmin(axis=1), int(low.sum())


def _walk(loss: FloatVector, cost: IntArray, start: IntArray) -> list[Steps]:
    """Gift wrapping from the cheapest point, all groups at once: at most k - 1 rounds."""
    parts = []
    active, here = np.arange(len(loss)), start
    last = np.full(len(loss), np.inf)
    while active.size:
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
