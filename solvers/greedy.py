"""`greedy`: steepest hull steps first, then smaller and smaller ones where the next does not fit. The baseline that
others use, here with a bound, and never worse with a larger limit.

Skipping each step that does not fit, as others do, is not monotone: a little more room lets in one step that shuts out
several better ones. Here each level takes the steepest steps of those let in, up to the first that does not fit: first
of all steps, then of those of at most a power of two, then of half of it, and so on. What a level leaves over is less
than the cost of that first step, and what smaller levels do with it is no steeper, so they save less than that step
does: by induction over the levels, more room is never worse.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bitwright.core.problem import IntArray
from solvers.base import LATE, Deadline, Outcome, Pace, Solver
from solvers.hulls import Hulls, Steps, hulls_within, relax
from solvers.infeasibility import limit_blame
from solvers.reduce import Reduced

#: What sorting the steps level by level takes, over what finding and sorting them takes.
SORTING = 1.8


def greedy(reduced: Reduced, deadline: Deadline, seed: int) -> Outcome:
    """One limit or none. The multiplier is the slope of the first step that does not fit."""
    if not reduced.limits:
        return Outcome(reduced.loss.argmin(axis=1))
    row = reduced.limits[0]
    hulls = hulls_within(reduced.loss, row.weight, lambda: deadline.left)
    if hulls is None:
        return Outcome(None, info={"stopped": LATE})
    vertex = relax(hulls, row.bound)
    if vertex is None:
        return Outcome(None, blame=limit_blame(reduced.problem, row.name))
    choice = _filled(hulls, row.bound, deadline) if SORTING * hulls.seconds < deadline.left else vertex.choice
    return Outcome(choice, {row.name: reduced.multiplier(row, vertex.slope)})


def _filled(hulls: Hulls, bound: int, deadline: Deadline) -> IntArray:
    """Level by level: the steepest steps of those let in, while they fit; no level that time is too short for."""
    choice, room = hulls.cheapest.copy(), bound - hulls.cost
    steps, pace = _Left.of(hulls.steps), Pace(deadline)
    while len(steps.dcost) and int(steps.dcost.min()) <= room and pace.another():
        taken = int(np.searchsorted(np.cumsum(steps.dcost), room, side="right"))
        choice[steps.group[:taken]] = steps.after[:taken]
        room -= int(steps.dcost[:taken].sum())
        steps = steps.next_level(taken)
    return choice


@dataclass(frozen=True, eq=False)
class _Left:
    """Steps not taken yet, steepest first. rank: place of dcost among those of all steps, `sizes` (no two share one).

    by_group: the steps group by group, kept from level to level: sorting again would be most of the time.
    """

    group: IntArray
    after: IntArray
    dcost: IntArray
    rank: IntArray
    by_group: IntArray
    sizes: IntArray

    @staticmethod
    def of(steps: Steps) -> _Left:
        """Smaller steps first among equally steep ones, whatever the order of the groups; within one, in its order."""
        count = len(steps)
        rising, rank = np.argsort(steps.dcost, kind="stable"), np.empty(count, np.int64)
        rank[rising] = np.arange(count)
        by_group = np.argsort(steps.group, kind="stable")
        place, dearest = np.empty(count, np.int64), np.empty(count, np.int64)
        group = steps.group[by_group]
        place[by_group] = np.arange(count) - np.searchsorted(group, group)
        dearest[by_group] = _dearest(group, rank[by_group])
        sizes = steps.dcost[rising]
        order = np.lexsort((steps.dcost, place, sizes[dearest], -steps.slope))
        at = np.empty(count, np.int64)
        at[order] = np.arange(count)
        columns = (steps.group[order], steps.after[order], steps.dcost[order], rank[order])
        return _Left(*columns, at[by_group], sizes)

    def next_level(self, taken: int) -> _Left:
        """Without the first steps, which were taken, and without those that the next level shuts out."""
        left = self.by_group[self.by_group >= taken]
        if not len(left):
            return self._kept(left)
        # The dearest step of the same group so far, itself included: one that is not let in shuts out the later ones.
        dearest = self.sizes[_dearest(self.group[left], self.rank[left])]
        # The next smaller power of two that shuts something out: the levels between would take nothing.
        top = int(dearest.max())
        most = 1 << ((top - 1).bit_length() - 1) if top > 1 else 0
        return self._kept(left[dearest <= most])

    def _kept(self, left: IntArray) -> _Left:
        keep = np.zeros(len(self.group), bool)
        keep[left] = True
        place = np.cumsum(keep) - 1
        columns = (self.group[keep], self.after[keep], self.dcost[keep], self.rank[keep])
        return _Left(*columns, place[left], self.sizes)


def _dearest(group: IntArray, rank: IntArray) -> IntArray:
    """The highest rank so far within each group: groups stand together, by rising number."""
    base = group * (int(rank.max(initial=0)) + 1)
    return np.asarray(np.maximum.accumulate(base + rank) - base)


SOLVER = Solver("greedy", greedy)
