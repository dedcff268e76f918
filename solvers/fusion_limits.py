"""`fusion` under several limits: each block's configurations that are best for some mixture of the limits.

Every configuration is kept that is undominated in (loss, mixture of costs) for one of a few mixtures. On these the
several limits are `vector`'s business: a bound, a plan; the prices of the cover rules follow as for one limit, so the
certificate is that of the whole problem, whatever was left out here.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bitwright.core.problem import IntArray
from solvers.base import Deadline
from solvers.covers import Cover
from solvers.dual import Rows, maximise
from solvers.fusion_menu import Floats, blocks_of, menu_of
from solvers.reduce import Reduced
from solvers.repair import repair

#: Parts of the whole that a mixture gives to each limit.
PARTS = 4
#: Share of the time that must be left for another mixture; share of what is left for the plan.
LEFT, PLAN = 0.6, 0.8


@dataclass(frozen=True, eq=False)
class Mixed:
    """choice of the units (None: no plan found) and the multiplier of each limit on the integer rows."""

    choice: IntArray | None
    prices: Floats
    configurations: int


def mixed(reduced: Reduced, cover: Cover, deadline: Deadline) -> Mixed | None:
    """None where a block has no cover at all, or time is too short for one mixture."""
    scaled = [row.weight / max(1.0, float(row.bound)) for row in reduced.limits]
    blocks = list(blocks_of(cover))
    kept: list[dict[tuple[int, ...], int]] = [{} for _ in blocks]
    for number, share in enumerate(_mixtures(len(scaled))):
        if number and deadline.left < LEFT * deadline.seconds:
            break
        whole = np.tensordot(np.array(share, np.float64), np.array(scaled), axes=1)
        weight = np.rint(whole * 2.0**40 / max(1e-300, float(whole.max()))).astype(np.int64)
        listing = deadline.within(PLAN * deadline.left)
        for block, (members, units) in enumerate(blocks):
            menu = menu_of(cover, members, units, reduced.loss, weight, listing)
            if menu is None:
                break
            for forms in menu.forms.tolist():
                kept[block].setdefault(tuple(forms), len(kept[block]))
    if not all(kept):
        return None
    width = max(map(len, kept))
    loss = np.full((len(blocks), width), np.inf)
    costs = [np.zeros((len(blocks), width), np.int64) for _ in scaled]
    forms = [np.array(list(found), np.int64) for found in kept]
    for block, (_, units) in enumerate(blocks):
        count = len(forms[block])
        loss[block, :count] = _sums(reduced.loss, units, forms[block])
        for cost, row in zip(costs, reduced.limits, strict=True):
            cost[block, :count] = _sums(row.weight, units, forms[block])
    limits = tuple(replace(row, weight=cost) for row, cost in zip(reduced.limits, costs, strict=True))
    small = replace(reduced, loss=loss, limits=limits, rules=())
    rows = Rows.of(small)
    dual = maximise(small, rows, deadline)
    picks = repair(small, rows, dual.multipliers, deadline.within(PLAN * deadline.left))
    choice = None
    if picks is not None:
        choice = np.full(reduced.groups, cover.absent)
        for block, (_, units) in enumerate(blocks):
            choice[units] = forms[block][picks[block]]
    return Mixed(choice, dual.multipliers / rows.scale, sum(map(len, kept)))


def _mixtures(limits: int) -> list[tuple[int, ...]]:
    """Whole parts that add up to PARTS, the most even first."""
    shares = [share for share in itertools.product(range(PARTS + 1), repeat=limits) if sum(share) == PARTS]
    return sorted(shares, key=lambda share: (max(share), share))


def _sums(cells: NDArray[np.generic], units: IntArray, forms: IntArray) -> NDArray[np.generic]:
    return np.asarray(cells[units[None, :], forms].sum(axis=1))
