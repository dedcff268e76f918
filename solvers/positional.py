"""`positional`: the rule of thumb 'first and last layers high, the rest uniform'. A baseline without sensitivities.

Its plans form one ladder: a uniform plan, then the next dearer format for groups from both ends inward, up to the next
uniform plan. Of the plans of the ladder that fit, the one of least loss is given, so that more room is never worse.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.core.problem import IntArray
from solvers.base import LATE, Deadline, Outcome, Pace, Solver
from solvers.hulls import hulls_within, relax
from solvers.infeasibility import limit_blame
from solvers.reduce import Reduced


def positional(reduced: Reduced, deadline: Deadline, seed: int) -> Outcome:
    """The plan of the ladder that fits and has least loss, the first of equals.

    Where a uniform format is forbidden in a group, that group keeps its cheapest allowed format; the ladder begins with
    all of those.
    """
    if not reduced.limits:
        return Outcome(reduced.loss.argmin(axis=1))
    row = reduced.limits[0]
    hulls = hulls_within(reduced.loss, row.weight, lambda: deadline.left)
    if hulls is None:
        return Outcome(None, info={"stopped": LATE})
    vertex = relax(hulls, row.bound)
    if vertex is None:
        return Outcome(None, blame=limit_blame(reduced.problem, row.name))
    allowed, rows = np.isfinite(reduced.loss), np.arange(reduced.groups)
    plans = np.where(allowed, np.arange(reduced.k)[None, :], hulls.cheapest[:, None])
    ladder = np.argsort([row.total(plans[:, j]) for j in range(reduced.k)], kind="stable")
    inward = _from_both_ends(reduced.groups)
    here, best, least = hulls.cheapest, hulls.cheapest, np.inf
    pace = Pace(deadline)
    for there in (plans[:, j] for j in ladder.tolist()):
        if not pace.another():
            break
        cost = row.total(here) + _sums((row.weight[rows, there] - row.weight[rows, here])[inward])
        loss = reduced.loss[rows, here].sum() + _sums((reduced.loss[rows, there] - reduced.loss[rows, here])[inward])
        fitting = np.where(cost <= row.bound, loss, np.inf)
        count = int(fitting.argmin())
        if fitting[count] < least:
            least, best = float(fitting[count]), here.copy()
            best[inward[:count]] = there[inward[:count]]
        here = there
    return Outcome(best, {row.name: reduced.multiplier(row, vertex.slope)})


def _sums(parts: NDArray[Any]) -> NDArray[Any]:
    """Of the first 0, 1, ... of them."""
    return np.append(parts[:1] * 0, np.cumsum(parts))


def _from_both_ends(count: int) -> IntArray:
    """0, count-1, 1, count-2, ..."""
    half, odd = np.divmod(np.arange(count), 2)
    return np.where(odd == 0, half, count - 1 - half)


SOLVER = Solver("positional", positional)
