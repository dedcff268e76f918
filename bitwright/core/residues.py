"""What the rest of a limit must cost: the group relaxation of a knapsack (Gomory 1969), for cases (`core.cases`).

The limit less the total cost of a plan is a whole number, at least its residue by any modulus; the price of the limit
tells what it costs. What a plan pays beyond the least values of its units and that residue together are bounded by a
table of the least payment for each residue of the total (Bellman 1957), which takes one unit after another.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

#: Residues that a table may have, once what all costs are multiples of is taken out; additions of all tables.
WIDEST, ADDITIONS = 1 << 16, 1 << 28
#: Additions that a change takes at least.
CALL = 1 << 10


def paid(
    priced: NDArray[np.float64], cost: NDArray[np.int64], limit: int, price: float, modulus: int, below: float
) -> tuple[float, int]:
    """What any plan pays beyond the least priced losses, rounded down, or `below` if that is less; and the additions.

    priced: of each unit and format, inf where it may not be. A table that is too large is not made: -1 additions.
    """
    best = priced.argmin(axis=1)[:, None]
    extra = priced - np.take_along_axis(priced, best, axis=1)
    moved = cost - np.take_along_axis(cost, best, axis=1)
    left = limit - sum(np.take_along_axis(cost, best, axis=1)[:, 0].tolist())
    used = (extra < below) & (moved % modulus != 0)
    step = math.gcd(modulus, int(np.gcd.reduce(np.abs(moved[used]), initial=0)))
    width = modulus // step
    work = int(used.sum()) * (width + CALL)
    if width > WIDEST or work > ADDITIONS:
        return 0.0, -1
    least = np.full(width, np.inf)
    least[0] = 0.0
    for own, by, may in zip(extra, moved // step % width, used, strict=True):
        if not may.any():
            continue
        twice = np.concatenate((least, least))
        for more, by_cost in zip(own[may].tolist(), by[may].tolist(), strict=True):
            np.minimum(least, twice[width - by_cost : 2 * width - by_cost] + more, out=least)
    rest = (left // step % width - np.arange(width)) % width * step + left % step
    found = float((least + price * rest).min())
    return min(found * (1.0 - (len(extra) + 8) * 2.0**-52), below), work
