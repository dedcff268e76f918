"""`fusion`: Q-Palette's fusion-aware choice: which units share one format and one fused operation (`solvers.covers`).

Blocks that share no bundle are independent once the limit has a price. So each block's covers are enumerated, its
undominated (loss, cost) configurations become the formats of one unit, and the knapsack of `hull` solves the rest
exactly. Prices of the cover rules, for the certificate, are the duals of the cover's linear program at that slope.
With more than one limit (latency and memory) a small problem goes to `milp`, a larger one to `fusion_limits`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bitwright.core.problem import IntArray
from solvers import highs
from solvers.base import LATE, Deadline, Outcome, Solver
from solvers.covers import Cover, find_cover
from solvers.fusion_limits import mixed
from solvers.fusion_menu import Floats, Menu, blocks_of, menu_of
from solvers.hull import at_limit
from solvers.hulls import build_hulls
from solvers.milp import milp
from solvers.reduce import Reduced
from solvers.refute import refuted

#: Cells up to which several limits go to `milp`, which proves its answer.
SMALL = 1_000
#: Share of the time for the configurations; seconds at least for the prices of the rules.
LISTED, PRICES = 0.8, 0.02


def fusion(reduced: Reduced, deadline: Deadline, seed: int) -> Outcome:
    """Exact for one limit or none. Raises Unsupported where a block has too many covers or configurations."""
    cover = find_cover(reduced.problem)
    assert cover is not None  # the capability `only_covers`
    if len(reduced.limits) > 1:
        return _several(reduced, cover, deadline, seed)
    weight = reduced.limits[0].weight if reduced.limits else np.zeros(reduced.loss.shape, np.int64)
    menus, listing = [], deadline.within(LISTED * deadline.left)
    for members, units in blocks_of(cover):
        menu = menu_of(cover, members, units, reduced.loss, weight, listing)
        if menu is None:
            return Outcome(None, info={"stopped": LATE})
        menus.append(menu)
    if any(len(menu.loss) == 0 for menu in menus):
        return refuted(reduced, deadline, seed)
    loss, cost = _padded(menus)
    if reduced.limits:
        row = replace(reduced.limits[0], weight=cost)
        whole = replace(reduced, loss=loss, rules=(), limits=(row,))
        found = at_limit(whole, row, build_hulls(loss, cost), row.bound, deadline)
        if found.choice is None:
            return refuted(reduced, deadline, seed)
        slope = found.multipliers[row.name]
    else:
        found, slope = Outcome(loss.argmin(axis=1)), 0.0
    assert found.choice is not None
    choice = np.full(reduced.groups, cover.absent)
    for menu, pick in zip(menus, found.choice.tolist(), strict=True):
        choice[menu.units] = menu.forms[pick]
    sizes = [len(menu.loss) for menu in menus]
    # `slope` is in original units; the prices of the rules are found on the scaled losses and the integer row.
    ones = [reduced.multiplier(row, 1.0) for row in reduced.limits]
    grid = np.array([slope / one if one else 0.0 for one in ones])
    multipliers = {row.name: slope for row in reduced.limits} | _prices(reduced, cover, grid, deadline, seed)
    proved = found.proof is not None or not reduced.limits
    words = f"all covers of {len(menus)} blocks, {sum(sizes)} configurations, {found.proof or 'the least of each'}"
    return Outcome(
        choice, multipliers, proof=words if proved else None,
        info={"blocks": len(menus), "configurations": sum(sizes), **found.info},
    )  # fmt: skip


def _several(reduced: Reduced, cover: Cover, deadline: Deadline, seed: int) -> Outcome:
    found = None
    if reduced.loss.size > SMALL:
        found = mixed(reduced, cover, deadline)
    if found is None or found.choice is None:
        return milp(reduced, deadline, seed)
    multipliers = {
        row.name: reduced.multiplier(row, float(price)) for row, price in zip(reduced.limits, found.prices, strict=True)
    }
    multipliers |= _prices(reduced, cover, found.prices, deadline, seed)
    return Outcome(found.choice, multipliers, info={"configurations": found.configurations})


def _padded(menus: list[Menu]) -> tuple[Floats, IntArray]:
    """(blocks, most configurations) losses, inf where a block has fewer, and costs."""
    width = max(len(menu.loss) for menu in menus)
    loss, cost = np.full((len(menus), width), np.inf), np.zeros((len(menus), width), np.int64)
    for block, menu in enumerate(menus):
        loss[block, : len(menu.loss)], cost[block, : len(menu.cost)] = menu.loss, menu.cost
    return loss, cost


def _prices(reduced: Reduced, cover: Cover, grid: Floats, deadline: Deadline, seed: int) -> dict[str, float]:
    """Multipliers of the cover rules: duals of the cover's linear program over the bundles' least priced values.

    grid: multipliers of the limits on their integer rows and the scaled losses.
    """
    value = reduced.loss.copy()
    for row, price in zip(reduced.limits, grid.tolist(), strict=True):
        value += price * row.weight
    present = np.delete(value, cover.absent, axis=1).min(axis=1) - value[:, cover.absent]
    usable = np.flatnonzero(np.isfinite(present))
    members, place = np.nonzero(cover.holds[:, usable])
    count = len(cover.holds)
    start = np.append(0, np.cumsum(np.bincount(members, minlength=count)))
    model = highs.Model(
        present[usable], np.zeros(len(usable), bool), start, place, np.ones(len(place)), np.ones(count), np.ones(count)
    )
    mean = float(np.abs(model.cost).mean())
    scale = 2.0 ** -np.frexp(mean)[1] if mean > 0 else 1.0
    answer = highs.run_timed(model, integral=False, seconds=max(PRICES, deadline.left), seed=seed, cost_scale=scale)
    if answer.status != highs.OPTIMAL:
        return {}
    found: dict[str, float] = {}
    for member, (least, most) in enumerate(cover.rules.tolist()):
        dual = float(np.ldexp(answer.duals[member] / scale, reduced.exponent))
        found[f"rule:{least}"], found[f"rule:{most}"] = max(0.0, dual), max(0.0, -dual)
    return found


SOLVER = Solver("fusion", fusion)
