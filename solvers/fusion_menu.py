"""Blocks of an exact cover, their covers, and their undominated configurations by (loss, cost)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwright.core.errors import Unsupported
from bitwright.core.problem import IntArray
from solvers.base import Deadline
from solvers.covers import Cover

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


def blocks_of(cover: Cover) -> Iterator[tuple[IntArray, IntArray]]:
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


def menu_of(
    cover: Cover, members: IntArray, units: IntArray, loss: Floats, weight: IntArray, deadline: Deadline
) -> Menu | None:
    """The menu of one block; None past the deadline. Raises Unsupported beyond COVERS or CONFIGURATIONS."""
    holds = cover.holds[np.ix_(members, units)]
    best = Menu(units, np.zeros(0), np.zeros(0, np.int64), np.zeros((0, len(units)), np.int64))
    for number, taken in enumerate(_covers(holds)):
        if number >= COVERS:
            raise Unsupported("a block has too many covers", expected=f"at most {COVERS}", hint="use solver 'milp'")
        if deadline.passed:
            return None
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
