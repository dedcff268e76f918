"""`closed-form`: reverse water-filling on the law loss = c 4^-(cost / size), fitted to each row, then rounded.

BAQ and Q-Palette allocate this way (research/01 sections 1 and 2). c and size are a least-squares line through
(cost, log2 loss) of each group, so any table is taken; where the law holds the multiplier is the true one. The answer
is rounded down to formats, what is left is filled by steepest steps, and the certificate states the gap that remains.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bitwright.core.problem import IntArray
from solvers.base import LATE, MANY_CELLS, Deadline, Outcome, Pace, Solver
from solvers.infeasibility import limit_blame
from solvers.reduce import Reduced, Row
from solvers.water_filling import SLACK, Floats, fill_offsets

#: Shares of the continuous cost up to which a format is taken; the later ones where rounding oversteps the limit.
SHARES = (1 + SLACK, 1 - SLACK, 1 - 1e-6)
#: Seconds of a cell before the first look at the clock, about; single changes between two looks.
PACE, TURNS = 2.5e-7, 1 << 12


@dataclass(frozen=True, eq=False)
class Law:
    """log2 loss = top - 2 cost / size, by group; size 0 where no falling line fits (such a group starts cheapest)."""

    top: Floats
    size: Floats

    @staticmethod
    def fit(loss: NDArray[np.float64], cost: Floats) -> Law:
        used = np.isfinite(loss) & (loss > 0)
        count = np.maximum(used.sum(axis=1), 1)
        height = np.log2(loss, out=np.zeros_like(loss), where=used)
        mean_x, mean_y = np.where(used, cost, 0.0).sum(axis=1) / count, height.sum(axis=1) / count
        dx, dy = np.where(used, cost - mean_x[:, None], 0.0), np.where(used, height - mean_y[:, None], 0.0)
        spread, slant = (dx * dx).sum(axis=1), (dx * dy).sum(axis=1)
        falls = (spread > 0) & (slant < 0)
        size = np.where(falls, -2.0 * spread / np.where(falls, slant, -1.0), 0.0)
        top = mean_y + 2.0 * mean_x / np.where(falls, size, 1.0)
        falls &= np.isfinite(size) & np.isfinite(top)
        return Law(np.where(falls, top, 0.0), np.where(falls, size, 0.0))


def closed_form(reduced: Reduced, deadline: Deadline, seed: int) -> Outcome:
    """One limit or none. The multiplier is the marginal loss per cost of the fitted law at the water level."""
    if not reduced.limits:
        return Outcome(reduced.loss.argmin(axis=1))
    if reduced.loss.size > MANY_CELLS:  # sorting it would take longer than all else; equal cells go by their place
        return (
            _solved(reduced, deadline)
            if deadline.fits(PACE * reduced.loss.size)
            else Outcome(None, info={"stopped": LATE})
        )
    rows, formats = _by_content(reduced.loss, reduced.limits[0].weight)
    place = rows[:, None], formats
    limit = replace(reduced.limits[0], weight=reduced.limits[0].weight[place])
    found = _solved(replace(reduced, loss=reduced.loss[place], limits=(limit,)), deadline)
    if found.choice is None:
        return found
    choice = np.empty_like(rows)
    choice[rows] = formats[np.arange(len(rows)), found.choice]
    return replace(found, choice=choice)


def _by_content(loss: NDArray[np.float64], weight: IntArray) -> tuple[IntArray, IntArray]:
    """(order of the groups, that of the formats of each group in this order), whatever order they stand in."""
    forms = np.lexsort((loss, weight), axis=1)
    loss, weight = np.take_along_axis(loss, forms, axis=1), np.take_along_axis(weight, forms, axis=1)
    allowed, mix = np.isfinite(loss), np.sin(np.arange(1.0, 1.0 + loss.shape[1]))  # different rows, different sums
    keys = (np.where(allowed, loss, 0.0), allowed.astype(np.float64), weight.astype(np.float64))
    order = np.lexsort([(key * mix).sum(axis=1) for key in keys])
    return order, forms[order]


def _solved(reduced: Reduced, deadline: Deadline) -> Outcome:
    row = reduced.limits[0]
    allowed = np.isfinite(reduced.loss)
    cheapest = np.where(allowed, row.weight, np.iinfo(np.int64).max).argmin(axis=1)
    room = row.bound - row.total(cheapest)
    if room < 0:
        return Outcome(None, blame=limit_blame(reduced.problem, row.name))
    # In units of the mean cost, counted from each group's cheapest format.
    extra = (row.weight - row.weight[np.arange(reduced.groups), cheapest][:, None]).astype(np.float64)
    unit = max(1.0, float(np.where(allowed, extra, 0.0).max(axis=1).mean()))
    extra /= unit
    law = Law.fit(reduced.loss, extra)
    ideal, slope = _water(law, np.where(allowed, extra, 0.0).max(axis=1), room / unit)
    choice = _floored(reduced, row, extra, ideal, cheapest)
    choice = filled(reduced.loss, row.weight, choice, row.bound - row.total(choice), deadline)
    multipliers = {row.name: reduced.multiplier(row, slope / unit)}
    return Outcome(choice, multipliers, info={"fitted": int((law.size > 0).sum())})


def _water(law: Law, most: Floats, room: float) -> tuple[Floats, float]:
    """(cost of each group above its cheapest, marginal loss per cost) of the continuous optimum."""
    live = law.size > 0
    ideal = np.zeros(len(live))
    if not live.any():
        return ideal, 0.0
    size = law.size[live]
    offset = 0.5 * (law.top[live] - np.log2(size))
    water = fill_offsets(offset, size, room, 0.0, most[live] / size)
    ideal[live] = water.bits * size
    # d/dcost of c 4^-(cost / size) at the level t, where c 4^-b / size = 4^-t.
    return ideal, 2.0 * np.log(2.0) * float(np.exp2(max(-2.0 * water.level, -1000.0)))


def _floored(reduced: Reduced, row: Row, extra: Floats, ideal: Floats, cheapest: IntArray) -> IntArray:
    """The least loss among the formats that cost no more than the ideal, within the limit."""
    for share in SHARES:
        affordable = extra <= (ideal * share)[:, None]
        affordable[np.arange(reduced.groups), cheapest] = True
        choice: IntArray = np.where(affordable, reduced.loss, np.inf).argmin(axis=1)
        if row.total(choice) <= row.bound:
            return choice
    return cheapest


def filled(loss: NDArray[np.float64], weight: IntArray, choice: IntArray, room: int, deadline: Deadline) -> IntArray:
    """Rounds of single changes that fit, most loss saved per cost first; what costs nothing counts as half a unit."""
    choice, rows = choice.copy(), np.arange(len(loss))
    pace = Pace(deadline)
    while pace.another():
        saved = loss[rows, choice][:, None] - loss
        extra = weight - weight[rows, choice][:, None]
        rate = np.where((saved > 0) & (extra <= room), saved / np.maximum(extra, 0.5), -np.inf)
        best = rate.argmax(axis=1)
        movers = np.flatnonzero(rate[rows, best] > 0)
        if not len(movers):
            break
        for turn, i in enumerate(movers[np.argsort(-rate[movers, best[movers]], kind="stable")].tolist()):
            if turn % TURNS == TURNS - 1 and deadline.passed:
                break
            if extra[i, best[i]] <= room:
                room -= int(extra[i, best[i]])
                choice[i] = best[i]
    return choice


SOLVER = Solver("closed-form", closed_form)
