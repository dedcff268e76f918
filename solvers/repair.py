"""A feasible choice near the dual's: single moves first, then a beam search over the nearest groups.

At multipliers m every feasible choice x satisfies loss(x) - L(m) = sum of penalties + m.slack(x) (the gap form, with a
vector of multipliers): that sum is what is lowered here. Broken rows are priced above their multiplier.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bitwright.core.problem import IntArray
from solvers.base import Deadline, Pace
from solvers.dual import Rows
from solvers.patch import patched
from solvers.reduce import Reduced, Row, divisor

Floats = NDArray[np.float64]
#: Cells considered for single moves; groups and states of the beam search.
CELLS, GROUPS, STATES = 4_000, 200, 10_000
#: With more rows than this a beam search holds fewer states: each costs as many numbers.
MANY_ROWS = 4
#: Beam searches, each from the best choice so far; single moves in each.
ROUNDS, MOVES = 6, 2_000
#: A broken row costs this many times its multiplier (raised while it stays broken).
BROKEN = 4.0


@dataclass(frozen=True, eq=False)
class Field:
    """What the search looks at: penalties (g, k), candidate cells, multipliers and the price of breaking each row."""

    rows: Rows
    exact: tuple[Row, ...]
    penalty: Floats
    group: IntArray
    cell: IntArray
    m: Floats
    price: Floats

    def slack(self, choice: IntArray) -> Floats:
        """What is left of each row: exact in integers, then scaled (a rounded sum would hide the last unit)."""
        left = [-row.sense * (row.bound - row.total(choice)) for row in self.exact]
        return np.array(left, np.float64) / self.rows.scale

    def gap(self, choice: IntArray) -> float:
        return float(self.penalty[np.arange(len(choice)), choice].sum() + self.m @ self.slack(choice))

    def moves(self, choice: IntArray) -> tuple[IntArray, IntArray, Floats, Floats]:
        """(group, cell, extra penalty, use (r, moves)) of every candidate that differs from `choice`."""
        moving = choice[self.group] != self.cell
        g, c = self.group[moving], self.cell[moving]
        use = self.rows.weight[:, g, c] - self.rows.weight[:, g, choice[g]]
        return g, c, self.penalty[g, c] - self.penalty[g, choice[g]], use


def repair(reduced: Reduced, rows: Rows, m: Floats, deadline: Deadline, states: int = STATES) -> IntArray | None:
    """The best feasible choice found, or None. states: those that a beam search holds (its time grows with them)."""
    reduced = reachable(reduced)
    value = reduced.loss + np.tensordot(m, rows.weight, axes=1)
    penalty = value - value.min(axis=1, keepdims=True)
    choice = value.argmin(axis=1)
    group, cell = _nearest(penalty, choice)
    positive = penalty[group, cell][penalty[group, cell] > 0]
    price = np.maximum(m, 0.02 * float(m.max()) if m.any() else float(np.median(positive)) if positive.size else 1.0)
    field = Field(rows, reduced.rows, penalty, group, cell, m, price)
    best, best_gap = patched(reduced, penalty, choice, deadline), np.inf
    if best is not None:
        choice, best_gap = best, field.gap(best)
    for _ in range(ROUNDS):
        choice, before = _singles(field, choice, deadline), best_gap
        for candidate in (choice, _beam(field, choice, deadline, states)):
            if candidate is not None and all(row.holds(candidate) for row in reduced.rows):
                gap = field.gap(candidate)
                if gap < best_gap:
                    best, best_gap, choice = candidate, gap, candidate
        if deadline.passed or not best_gap < before:
            break
    return best


def reachable(reduced: Reduced) -> Reduced:
    """The same with each limit lowered to the next total that its steps reach.

    Costs move in steps: a search that is drawn to a bound between two of them is drawn to plans that break it.
    """
    allowed = np.isfinite(reduced.loss)
    limits = []
    for row in reduced.limits:
        least = np.where(allowed, row.weight, np.iinfo(np.int64).max).min(axis=1)
        step = divisor((row.weight - least[:, None])[allowed])
        base = int(least.sum())
        useless = (row.bound - base) % step if step > 1 and row.bound >= base else 0
        limits.append(replace(row, bound=row.bound - useless))
    return replace(reduced, limits=tuple(limits))


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


def _priced(slack: Floats, m: Floats, dear: Floats) -> Floats:
    """Summed over rows: multiplier times slack where a row holds, `dear` times the excess where it is broken."""
    return np.array(np.where(slack >= 0, m[:, None] * slack, -dear[:, None] * slack).sum(axis=0))


def _singles(field: Field, choice: IntArray, deadline: Deadline) -> IntArray:
    """Best single moves until none helps; then broken rows get dearer, up to a point."""
    choice, dear = choice.copy(), BROKEN * field.price
    slack, pace = field.slack(choice), Pace(deadline)
    for _ in range(MOVES):
        if not pace.another():
            break
        g, c, extra, use = field.moves(choice)
        now = float(_priced(slack[:, None], field.m, dear)[0])
        merit = extra + _priced(slack[:, None] - use, field.m, dear) - now
        best = int(merit.argmin()) if len(merit) else -1
        if best >= 0 and merit[best] < -1e-12 * abs(now):
            choice[g[best]] = c[best]
            slack = slack - use[:, best]
        elif (slack < 0).any() and (dear < 1e6 * field.price).all():
            dear = dear * np.where(slack < 0, 4.0, 1.0)
        else:
            break
    return choice


def _beam(field: Field, choice: IntArray, deadline: Deadline, states: int) -> IntArray | None:
    """Beam search over the groups whose moves are cheapest for what they shift; the best feasible state on the way.

    Groups come by rising rate (penalty per priced shift); a state is kept for its penalty plus that rate times its
    priced distance from the bounds, so the window closes as the moves get dearer.
    """
    g, c, extra, use = field.moves(choice)
    if not len(g):
        return None
    shift = field.price @ np.abs(use)
    rate = np.full(len(g), np.inf)
    np.divide(np.maximum(extra, 0.0), shift, out=rate, where=shift > 1e-12 * float(shift.max()))
    order = np.argsort(rate, kind="stable")
    owners = g[order][np.sort(np.unique(g[order], return_index=True)[1])][:GROUPS]
    state, value = field.slack(choice)[:, None], np.zeros(1)
    states = max(states * MANY_ROWS // max(MANY_ROWS, len(state)), 64)
    layers: list[tuple[IntArray, IntArray]] = []
    best, trace, pace = np.inf, (-1, -1), Pace(deadline)
    for owner in owners.tolist():
        if not pace.another():
            break
        cells = np.flatnonzero(g == owner)
        shifted = [state] + [state - use[:, q : q + 1] for q in cells]
        parent = np.tile(np.arange(state.shape[1]), len(cells) + 1)
        moved = np.repeat(np.append(-1, cells), state.shape[1])
        value = np.concatenate([value] + [value + extra[q] for q in cells])
        state = np.concatenate(shifted, axis=1)
        final = np.where((state >= 0).all(axis=0), value + field.m @ state, np.inf)
        place = int(final.argmin())
        share = min(1.0, float(rate[cells].min()))
        score = value + share * (field.price @ np.abs(state))
        keep = np.argpartition(score, states)[:states] if len(score) > states else np.arange(len(score))
        if final[place] < best:
            best, keep = float(final[place]), np.append(keep[keep != place], place)
            trace = (len(layers), len(keep) - 1)
        layers.append((parent[keep], moved[keep]))
        state, value = state[:, keep], value[keep]
    if trace[0] < 0:
        return None
    found, at = choice.copy(), trace[1]
    for parents, moves in reversed(layers[: trace[0] + 1]):
        if moves[at] >= 0:
            found[g[moves[at]]] = c[moves[at]]
        at = int(parents[at])
    return found
