"""A feasible choice near the dual's: moves of one or two groups that lower penalty plus priced slack.

At multipliers m every choice x satisfies loss(x) - L(m) = sum of penalties + m.slack(x) where it is feasible (the gap form,
with a vector of multipliers). The search lowers that sum; broken rows are priced above their multiplier.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bitwright.core.problem import IntArray
from solvers.base import Deadline
from solvers.dual import Rows
from solvers.reduce import Reduced

Floats = NDArray[np.float64]
#: Cells considered for single moves and, of those, for moves in pairs.
CELLS, PAIRED = 4_000, 1_500
ROUNDS = 400
#: A broken row costs this many times its multiplier (raised while it stays broken).
BROKEN = 4.0


def repair(reduced: Reduced, rows: Rows, m: Floats, deadline: Deadline) -> IntArray | None:
    """The best feasible choice found, or None."""
    price = np.tensordot(m, rows.weight, axes=1)
    value = reduced.loss + price
    choice = value.argmin(axis=1)
    penalty = value - value.min(axis=1, keepdims=True)
    group, cell = _nearest(penalty, choice)
    best, best_gap = None, np.inf
    dear = np.maximum(m, _floor(penalty, group, cell)) * BROKEN
    for _ in range(ROUNDS):
        slack = rows.bound - _totals(rows, choice)
        feasible = all(row.holds(choice) for row in reduced.rows)
        gap = float(penalty[np.arange(len(choice)), choice].sum() + m @ slack)
        if feasible and gap < best_gap:
            best, best_gap = choice.copy(), gap
        moved = _improve(rows, penalty, choice, group, cell, m, dear, slack)
        if not moved:
            if feasible or deadline.passed:
                break
            dear = dear * np.where(slack < 0, 4.0, 1.0)
    return best


def _floor(penalty: Floats, group: IntArray, cell: IntArray) -> float:
    """A price for breaking rows whose multiplier is zero."""
    positive = penalty[group, cell]
    positive = positive[positive > 0]
    return float(np.median(positive)) if positive.size else 1.0


def _totals(rows: Rows, choice: IntArray) -> Floats:
    return np.array(rows.weight[:, np.arange(len(choice)), choice].sum(axis=1))


def _nearest(penalty: Floats, choice: IntArray) -> tuple[IntArray, IntArray]:
    """The CELLS cells of least penalty that are not chosen, and the chosen ones of their groups (to move back to)."""
    others = penalty.copy()
    others[np.arange(len(choice)), choice] = np.inf
    flat = others.ravel()
    count = min(CELLS, int(np.isfinite(flat).sum()))
    keep = np.argpartition(flat, count - 1)[:count] if count else np.zeros(0, np.int64)
    group, cell = np.divmod(keep, penalty.shape[1])
    owners = np.unique(group)
    group, cell = np.append(group, owners), np.append(cell, choice[owners])
    order = np.lexsort((cell, group))
    return group[order], cell[order]


def _improve(
    rows: Rows,
    penalty: Floats,
    choice: IntArray,
    group: IntArray,
    cell: IntArray,
    m: Floats,
    dear: Floats,
    slack: Floats,
) -> bool:
    """Apply the best single move, or the best pair when no single move helps. False at a local optimum."""
    moving = choice[group] != cell
    g, c = group[moving], cell[moving]
    if not len(g):
        return False
    extra = penalty[g, c] - penalty[g, choice[g]]
    use = rows.weight[:, g, c] - rows.weight[:, g, choice[g]]
    now = _priced(slack[:, None], m, dear)[0]
    merit = extra + _priced(slack[:, None] - use, m, dear) - now
    tolerance = 1e-12 * abs(now)
    first = int(merit.argmin())
    if merit[first] < -tolerance:
        choice[g[first]] = c[first]
        return True
    # A pair whose penalty alone exceeds what is to be gained cannot help.
    pick = np.argsort(extra, kind="stable")[:PAIRED]
    pick = pick[extra[pick] + extra[pick[0]] < now]
    if len(pick) < 2:
        return False
    left = slack[:, None, None] - use[:, pick][:, :, None] - use[:, pick][:, None, :]
    both = extra[pick][:, None] + extra[pick][None, :] + _priced(left, m, dear) - now
    both[g[pick][:, None] == g[pick][None, :]] = np.inf
    a, b = np.unravel_index(int(both.argmin()), both.shape)
    if not both[a, b] < -tolerance:
        return False
    choice[g[pick[a]]], choice[g[pick[b]]] = c[pick[a]], c[pick[b]]
    return True


def _priced(slack: Floats, m: Floats, dear: Floats) -> Floats:
    """Summed over rows: multiplier times slack where a row holds, `dear` times the excess where it is broken."""
    shape = (-1,) + (1,) * (slack.ndim - 1)
    return np.array(np.where(slack >= 0, m.reshape(shape) * slack, -dear.reshape(shape) * slack).sum(axis=0))
