"""`greedy`: steepest hull steps first, then smaller and smaller ones where the next does not fit. The baseline that
others use, here with a bound, and never worse with a larger limit.

Skipping each step that does not fit, as others do, is not monotone: a little more room lets in one step that shuts out
several better ones. Here each level takes the steepest steps of those let in, up to the first that does not fit: first
of all steps, then of those of at most a power of two, then of half of it, and so on. What a level leaves over is less
than the cost of that first step, and what smaller levels do with it is no steeper, so they save less than that step
does: by induction over the levels, more room is never worse.
"""

from __future__ import annotations

import numpy as np

from bitwright.core.problem import IntArray
from solvers.base import Deadline, Outcome, Solver
from solvers.hulls import Hulls, Steps, build_hulls, relax
from solvers.infeasibility import limit_blame
from solvers.reduce import Reduced


def greedy(reduced: Reduced, deadline: Deadline, seed: int) -> Outcome:
    """One limit or none. The multiplier is the slope of the first step that does not fit."""
    if not reduced.limits:
        return Outcome(reduced.loss.argmin(axis=1))
    row = reduced.limits[0]
    hulls = build_hulls(reduced.loss, row.weight)
    vertex = relax(hulls, row.bound)
    if vertex is None:
        return Outcome(None, blame=limit_blame(reduced.problem, row.name))
    return Outcome(_filled(hulls, row.bound), {row.name: reduced.multiplier(row, vertex.slope)})


def _filled(hulls: Hulls, bound: int) -> IntArray:
    """Level by level: the steepest steps of those let in, while they fit."""
    choice, room = hulls.cheapest.copy(), bound - hulls.cost
    # Smaller steps first among equally steep ones: the order of the groups must not matter.
    steps = _picked(hulls.steps, np.lexsort((hulls.steps.dcost, -hulls.steps.slope)))
    while len(steps):
        taken = int(np.searchsorted(np.cumsum(steps.dcost), room, side="right"))
        choice[steps.group[:taken]] = steps.after[:taken]
        room -= int(steps.dcost[:taken].sum())
        steps = _picked(steps, np.arange(taken, len(steps)))
        dearest = _dearest(steps)
        # The next smaller power of two that shuts something out: the levels between would take nothing.
        most = 1 << ((int(dearest.max(initial=1)) - 1).bit_length() - 1) if dearest.max(initial=1) > 1 else 0
        steps = _picked(steps, np.flatnonzero(dearest <= most))
    return choice


def _dearest(steps: Steps) -> IntArray:
    """The dearest step of the same group so far, itself included: one that is not let in shuts out the later ones."""
    order = np.argsort(steps.group, kind="stable")
    group, dearest = steps.group[order], steps.dcost[order]
    for gap in range(1, int(np.bincount(group).max(initial=1))):
        same = group[gap:] == group[:-gap]
        dearest[gap:] = np.where(same, np.maximum(dearest[gap:], steps.dcost[order][:-gap]), dearest[gap:])
    found = np.empty_like(dearest)
    found[order] = dearest
    return found


def _picked(steps: Steps, which: IntArray) -> Steps:
    return Steps(*(getattr(steps, name)[which] for name in ("group", "before", "after", "dcost", "dloss", "slope")))


SOLVER = Solver("greedy", greedy)
