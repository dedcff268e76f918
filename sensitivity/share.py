"""Who works through the batches of a pass: this process alone, or several, each a run of batches.

What a batch gives does not depend on who computes it, and one process adds up what all of them gave, in the order of
the batches. So any number of workers makes the same table, to the byte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sensitivity.moments import Moments


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


#: Computes some of the batches of a pass, in their order.
Compute = Callable[[range], Iterator[Values]]


class Share(Protocol):
    """One scoring of one question; a metric asks in the same order wherever it runs."""

    def decide(self, name: str, make: Callable[[], Any]) -> Any:
        """A choice that could come out differently elsewhere, as plain JSON: made once, by whoever asks first."""
        ...

    def gather(self, batches: range, compute: Compute) -> Iterator[Values]:
        """The values of these batches in their order, computed here or brought from elsewhere."""
        ...


class Alone:
    """Everything is done here."""

    def decide(self, name: str, make: Callable[[], Any]) -> Any:
        return make()

    def gather(self, batches: range, compute: Compute) -> Iterator[Values]:
        return compute(batches)


ALONE = Alone()


def add_up(moments: Moments, share: Share, batches: int, size: int, compute: Compute) -> int:
    """Adds the values of all `batches` (of `size` items, the last one perhaps short) that `moments` does not hold yet.

    Gives the directions an item; 0 when everything was there.
    """
    directions = 0
    for values in share.gather(range(-(-moments.items // size), batches), compute):
        moments.add_values(values)
        directions = values.directions
    return directions
