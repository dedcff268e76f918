"""`positional`: the rule of thumb 'first and last layers high, the rest uniform'. A baseline without sensitivities."""

from __future__ import annotations

import numpy as np

from solvers.base import Deadline, Outcome, Solver
from solvers.hulls import build_hulls, relax
from solvers.infeasibility import limit_blame
from solvers.reduce import Reduced


def positional(reduced: Reduced, deadline: Deadline, seed: int) -> Outcome:
    """The dearest uniform format that fits; then groups from both ends inward take the next dearer one while it fits.

    Where a uniform format is forbidden in a group, or none fits, that group starts from its cheapest allowed format.
    """
    if not reduced.limits:
        return Outcome(reduced.loss.argmin(axis=1))
    row = reduced.limits[0]
    hulls = build_hulls(reduced.loss, row.weight)
    vertex = relax(hulls, row.bound)
    if vertex is None:
        return Outcome(None, blame=limit_blame(reduced.problem, row.name))
    allowed, rows = np.isfinite(reduced.loss), np.arange(reduced.groups)
    plans = np.where(allowed, np.arange(reduced.k)[None, :], hulls.cheapest[:, None])
    totals = np.array([row.total(plans[:, j]) for j in range(reduced.k)])
    ladder = np.argsort(totals, kind="stable")
    fits = [int(j) for j in ladder if totals[j] <= row.bound]
    choice = plans[:, fits[-1]].copy() if fits else hulls.cheapest.copy()
    room = row.bound - row.total(choice)
    dearer = ladder[len(fits) :]
    if len(dearer):
        high = plans[:, dearer[0]]
        extra = row.weight[rows, high] - row.weight[rows, choice]
        for group in _from_both_ends(reduced.groups):
            if extra[group] > room:
                break
            choice[group] = high[group]
            room -= int(extra[group])
    return Outcome(choice, {row.name: reduced.multiplier(row, vertex.slope)})


def _from_both_ends(count: int) -> list[int]:
    """0, count-1, 1, count-2, ..."""
    return [t // 2 if t % 2 == 0 else count - 1 - t // 2 for t in range(count)]


SOLVER = Solver("positional", positional)
