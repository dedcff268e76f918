"""A feasible choice from one that breaks limits and rules: rules first, then limits, the cheapest changes first.

What `repair` polishes it does not always find by itself: with a hundred rules its best single moves are too few.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bitwright.core.problem import AT_LEAST, IntArray
from solvers.base import Deadline
from solvers.reduce import Reduced

#: Rounds over all broken rows, and changes looked at in all.
ROUNDS, TRIES = 12, 50_000
#: Changes between two looks at the clock.
LOOK = 256


def patched(reduced: Reduced, penalty: NDArray[np.float64], choice: IntArray, deadline: Deadline) -> IntArray | None:
    """A feasible choice near `choice`, or None. penalty (g, k): what each cell costs more than its group's best."""
    rows = reduced.rows
    sign = np.array([-1 if row.sense == AT_LEAST else 1 for row in rows])
    slack = np.array([s * (row.bound - row.total(choice)) for s, row in zip(sign, rows, strict=True)], np.int64)
    choice, each = choice.copy(), np.arange(len(choice))
    touched = np.array([row.weight.any(axis=1) for row in rows])
    tries = TRIES
    for _ in range(ROUNDS):
        broken = np.flatnonzero(slack < 0)
        if not len(broken):
            return choice
        before = int(np.count_nonzero(slack < 0)), float(slack[slack < 0].sum())
        for r in sorted(broken.tolist(), key=lambda r: r < len(reduced.limits)):
            # Rules first, whatever that costs in limits; then the limits, without breaking a rule again.
            guarded = np.arange(len(rows)) >= (0 if r < len(reduced.limits) else len(reduced.limits))
            if deadline.passed:
                return None
            weight = sign[r] * rows[r].weight
            gain = weight[each, choice][:, None] - weight
            extra = penalty - penalty[each, choice][:, None]
            useful = (gain > 0) & np.isfinite(penalty)
            flat = np.flatnonzero(useful)
            rate = extra.ravel()[flat] / np.minimum(gain.ravel()[flat], max(1, -int(slack[r])))
            if len(flat) > tries >= 0:  # no others are looked at, so no others are sorted
                near = rate <= np.partition(rate, tries)[tries]
                flat, rate = flat[near], rate[near]
            g, k = np.divmod(flat[np.argsort(rate, kind="stable")], penalty.shape[1])
            moved: set[int] = set()
            for group, cell in zip(g.tolist(), k.tolist(), strict=True):
                tries -= 1
                if slack[r] >= 0 or tries < 0:
                    break
                if tries % LOOK == 0 and deadline.passed:
                    return None
                if group in moved:
                    continue
                after = slack.copy()
                for q in np.flatnonzero(touched[:, group]).tolist():
                    after[q] -= sign[q] * (rows[q].weight[group, cell] - rows[q].weight[group, choice[group]])
                if ((after < 0) & (after < slack) & guarded).any():
                    continue
                slack, choice[group] = after, cell
                moved.add(group)
        if (int(np.count_nonzero(slack < 0)), float(slack[slack < 0].sum())) == before:
            break
    return choice if (slack >= 0).all() else None
