"""Who works through the pieces of a pass (batches of data, units of the model): this process alone, or several, each a
run of pieces.

What a piece gives does not depend on who computes it, and one process puts together what all of them gave, in the order
of the pieces. So any number of workers makes the same table, to the byte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sensitivity.partial import State

if TYPE_CHECKING:
    from bitwright.core.inventory import Inventory
    from sensitivity.base import ScoringTask
    from sensitivity.moments import Moments

Array = NDArray[Any]

#: Computes some of the pieces of a pass, in their order: arrays by name of each.
Compute = Callable[[range], Iterator[State]]


class Share(Protocol):
    """One scoring of one question; a metric asks in the same order wherever it runs."""

    def decide(self, name: str, make: Callable[[], Any]) -> Any:
        """A choice that could come out differently elsewhere, as plain JSON: made once, by whoever asks first."""
        ...

    def gather(self, pieces: range, compute: Compute) -> Iterator[State]:
        """What these pieces give, in their order, computed here or brought from elsewhere."""
        ...


class Alone:
    """Everything is done here."""

    def decide(self, name: str, make: Callable[[], Any]) -> Any:
        return make()

    def gather(self, pieces: range, compute: Compute) -> Iterator[State]:
        return compute(pieces)


ALONE = Alone()


@dataclass(frozen=True, eq=False)
class Values:
    """What one batch gives. cells: float64 (items, units, columns); reached: bool (units,), which ones it touched;
    rows: int64 (items,), the items' numbers in the data; directions: directions an item. signed: float32 (items,
    directions, units, columns), scores before squaring, scaled so that a cell is half their mean square."""

    cells: NDArray[np.float64]
    reached: NDArray[np.bool_]
    rows: NDArray[np.int64]
    directions: int = 0
    signed: NDArray[np.float32] | None = None

    def arrays(self) -> State:
        kept = {
            "cells": self.cells,
            "reached": self.reached,
            "rows": self.rows,
            "directions": np.array(self.directions),
        }
        return kept if self.signed is None else {**kept, "signed": self.signed}


@dataclass(frozen=True, eq=False)
class Totals:
    """What some batches give where tables are too large to hold one an item. sums, squares: float64 (units, columns),
    of the items' values and of their squares; items: how many; directions: as of `Values`."""

    sums: NDArray[np.float64]
    squares: NDArray[np.float64]
    items: int
    directions: int = 0

    def arrays(self) -> State:
        numbers = {"items": np.array(self.items), "directions": np.array(self.directions)}
        return {"sums": self.sums, "squares": self.squares, **numbers}


def values_of(arrays: State) -> Values | Totals:
    """What `Values.arrays` or `Totals.arrays` gave."""
    if "squares" in arrays:
        return Totals(arrays["sums"], arrays["squares"], int(arrays["items"]), int(arrays["directions"]))
    signed = arrays.get("signed")
    return Values(arrays["cells"], arrays["reached"], arrays["rows"], int(arrays["directions"]), signed)


def add_up(
    moments: Moments, share: Share, batches: int, size: int, compute: Callable[[range], Iterator[Values | Totals]]
) -> int:
    """Adds the values of all `batches` (of `size` items, the last one perhaps short) that `moments` does not hold yet.

    Gives the directions an item; 0 when everything was there.
    """
    directions = 0
    for arrays in share.gather(
        range(-(-moments.items // size), batches), lambda run: (values.arrays() for values in compute(run))
    ):
        values = values_of(arrays)
        moments.add_values(values)
        directions = values.directions
    return directions


def blocks_of(inventory: Inventory) -> list[tuple[int, ...]]:
    """Unit numbers by layer of the model, the layers in the order of their first units: the pieces of a pass that looks
    at the units of one layer together."""
    found: dict[int | None, list[int]] = {}
    for number, unit in enumerate(inventory.units):
        found.setdefault(unit.layer, []).append(number)
    return [tuple(numbers) for numbers in found.values()]


def one_by_one(inventory: Inventory) -> list[tuple[int, ...]]:
    """Every unit a piece of its own, for passes that look at one unit at a time."""
    return [(number,) for number in range(len(inventory.units))]


#: Some units of the model -> (unit number, arrays) of those that it has something to say of.
UnitRows = Callable[[tuple[int, ...]], Iterator[tuple[int, State]]]


def by_units(task: ScoringTask, groups: Sequence[tuple[int, ...]], rows: UnitRows) -> dict[int, dict[str, Array]]:
    """What `rows` says of each unit, a pass whose pieces are groups of units; of them all in one call if nobody helps.

    An array `energy` (formats,) is taken as the unit's squared errors: whoever puts the table together need not
    quantize it again.
    """

    def compute(run: range) -> Iterator[State]:
        group_of = {unit: group for group in run for unit in groups[group]}
        said: dict[int, dict[str, Array]] = {group: {} for group in run}
        for unit, arrays in rows(tuple(group_of)):
            said[group_of[unit]] |= {f"{unit}/{name}": array for name, array in arrays.items()}
        yield from said.values()

    found: dict[int, dict[str, Array]] = {}
    for arrays in task.share.gather(range(len(groups)), compute):
        for key, array in arrays.items():
            unit, _, name = key.partition("/")
            found.setdefault(int(unit), {})[name] = array
            if name == "energy":
                task.deltas.know_energy(int(unit), array)
    return found
