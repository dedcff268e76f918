"""`fusion`: Q-Palette's fusion-aware choice: which units share one format and one fused operation (`solvers.covers`).

Blocks that share no bundle are independent once the limit has a price. So each block's covers are enumerated, its
undominated (loss, cost) configurations become the formats of one unit, and the knapsack of `hull` solves the rest
exactly. Prices of the cover rules, for the certificate, are the duals of the cover's linear program at that slope.
With more than one limit (latency and memory) the whole goes to `milp`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bitwright.core.errors import Unsupported
from bitwright.core.problem import IntArray
from solvers import highs
from solvers.base import Deadline, Outcome, Solver
from solvers.covers import Cover, find_cover
from solvers.hull import at_limit
from solvers.hulls import build_hulls
from solvers.milp import milp
from solvers.reduce import Reduced, Row
from solvers.refute import refuted

Floats = NDArray[np.float64]
#: Covers of one block, and configurations of one block held at once.
COVERS, CONFIGURATIONS = 10_000, 1 << 20


@dataclass(frozen=True, eq=False)
class Menu:
    """Undominated configurations of one block, by rising cost: loss (c,), cost (c,), forms (c, units) of `units`."""

    units: IntArray
    loss: Floats
    cost: IntArray
    forms: IntArray


def fusion(reduced: Reduced, deadline: Deadline, seed: int) -> Outcome:
    """Exact for one limit or none. Raises Unsupported where a block has too many covers or configurations."""
    cover = find_cover(reduced.problem)
    assert cover is not None  # the capability `only_covers`
    if len(reduced.limits) > 1:
        return milp(reduced, deadline, seed)
    weight = reduced.limits[0].weight if reduced.limits else np.zeros(reduced.loss.shape, np.int64)
    blocks = list(_blocks(cover))
    menus = [_menu(cover, members, units, reduced.loss, weight) for members, units in blocks]
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
    multipliers = {row.name: slope for row in reduced.limits} | _prices(reduced, cover, slope, deadline, seed)
    proved = found.proof is not None or not reduced.limits
    words = f"all covers of {len(menus)} blocks, {sum(sizes)} configurations, {found.proof or 'the least of each'}"
    return Outcome(
        choice, multipliers, proof=words if proved else None,
        info={"blocks": len(menus), "configurations": sum(sizes), **found.info},
    )  # fmt: skip


def _blocks(cover: Cover) -> Iterator[tuple[IntArray, IntArray]]:
    """(members, units) of each connected block, in order of its first member."""
    left = np.ones(len(cover.holds), bool)
    while left.any():
        members: NDArray[np.bool_] = np.zeros(len(left), bool)
        members[int(left.argmax())] = True
        while True:
            units = cover.holds[members].any(axis=0)
            grown = np.asarray(cover.holds[:, units].any(axis=1))
            if np.array_equal(grown, members):
                break
            members = grown
        left[members] = False
        yield np.flatnonzero(members), np.flatnonzero(units)


def _covers(holds: NDArray[np.bool_]) -> Iterator[tuple[int, ...]]:
    """Every set of columns that holds each row exactly once: the first open row decides (Knuth's Algorithm X)."""

    def down(open_: NDArray[np.bool_], taken: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        if not open_.any():
            yield taken
            return
        first = int(open_.argmax())
        for unit in np.flatnonzero(holds[first] & ~(holds & ~open_[:, None]).any(axis=0)).tolist():
            yield from down(open_ & ~holds[:, unit], (*taken, unit))

    yield from down(np.ones(len(holds), bool), ())


def _menu(cover: Cover, members: IntArray, units: IntArray, loss: Floats, weight: IntArray) -> Menu:
    holds = cover.holds[np.ix_(members, units)]
    best = Menu(units, np.zeros(0), np.zeros(0, np.int64), np.zeros((0, len(units)), np.int64))
    for number, taken in enumerate(_covers(holds)):
        if number >= COVERS:
            raise Unsupported("a block has too many covers", expected=f"at most {COVERS}", hint="use solver 'milp'")
        one = Menu(units, np.zeros(1), np.zeros(1, np.int64), np.full((1, len(units)), cover.absent))
        for place, unit in enumerate(units.tolist()):
            forms = np.array([cover.absent])
            if place in taken:
                forms = np.setdiff1d(np.flatnonzero(np.isfinite(loss[unit])), [cover.absent])
            one = _extended(one, place, forms, loss[unit, forms], weight[unit, forms])
        best = _undominated(
            Menu(units, *(np.concatenate([getattr(best, f), getattr(one, f)]) for f in ("loss", "cost", "forms")))
        )
    return best


def _extended(menu: Menu, place: int, forms: IntArray, loss: Floats, cost: IntArray) -> Menu:
    if len(menu.loss) * len(forms) > CONFIGURATIONS:
        raise Unsupported(
            "a block has too many configurations", expected=f"at most {CONFIGURATIONS}", hint="use solver 'milp'"
        )
    rows = np.repeat(menu.forms, len(forms), axis=0)
    rows[:, place] = np.tile(forms, len(menu.loss))
    return _undominated(
        Menu(
            menu.units,
            (menu.loss[:, None] + loss[None, :]).ravel(),
            (menu.cost[:, None] + cost[None, :]).ravel(),
            rows,
        )
    )


def _undominated(menu: Menu) -> Menu:
    """Configurations that lose less than every cheaper one; of equals the first in order of formats."""
    order = np.lexsort((*menu.forms.T[::-1], menu.loss, menu.cost))
    loss = menu.loss[order]
    before = np.concatenate([[np.inf], np.minimum.accumulate(loss)[:-1]])
    keep = order[loss < before]
    return Menu(menu.units, menu.loss[keep], menu.cost[keep], menu.forms[keep])


def _padded(menus: list[Menu]) -> tuple[Floats, IntArray]:
    """(blocks, most configurations) losses, inf where a block has fewer, and costs."""
    width = max(len(menu.loss) for menu in menus)
    loss, cost = np.full((len(menus), width), np.inf), np.zeros((len(menus), width), np.int64)
    for block, menu in enumerate(menus):
        loss[block, : len(menu.loss)], cost[block, : len(menu.cost)] = menu.loss, menu.cost
    return loss, cost


def _prices(reduced: Reduced, cover: Cover, slope: float, deadline: Deadline, seed: int) -> dict[str, float]:
    """Multipliers of the cover rules: duals of the cover's linear program over the bundles' least priced values."""
    value = reduced.loss.copy()
    if reduced.limits:
        row: Row = reduced.limits[0]
        # `slope` is in original units; this is back to the scaled losses and the integer row.
        unit = reduced.multiplier(row, 1.0)
        value += (slope / unit if unit else 0.0) * row.weight
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
    answer = highs.run(model, integral=False, seconds=max(0.05, deadline.left), seed=seed, cost_scale=scale)
    if answer.status != highs.OPTIMAL:
        return {}
    found: dict[str, float] = {}
    for member, (least, most) in enumerate(cover.rules.tolist()):
        dual = float(np.ldexp(answer.duals[member] / scale, reduced.exponent))
        found[f"rule:{least}"], found[f"rule:{most}"] = max(0.0, dual), max(0.0, -dual)
    return found


SOLVER = Solver("fusion", fusion)
