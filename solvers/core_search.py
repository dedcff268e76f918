"""From the LP relaxation to the proved optimum: the gap form and dynamic programming over the core.

At the critical slope `s` every feasible choice x satisfies

    loss(x) - LP = s * slack(x) + sum over groups of penalty(g, x_g),   penalty >= 0

(research/05 section 4, step 5). So only cells with penalty below the gap in hand can matter: the core. States
(extra cost, penalty) are merged group by group; a state is dropped when a cheaper one has no more loss (dominance), or
when no way to complete it beats the gap in hand.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwright.core.problem import IntArray
from solvers.core_table import Core, Effort, Found, search_numpy

Search = Callable[[Core, float, int, float, Effort], Found]
#: A gap below this share of the magnitudes at hand is rounding (a tenth of certificate.ROUNDING).
TINY = 1e-13


@dataclass(frozen=True)
class Engine:
    """A search and how much it may do: `stages` are (groups, states); `work` bounds the states expanded in all.

    The first stages find good plans fast; the last one, over the whole core, proves. Work is counted, not timed, so
    that the same input gives the same answer on a slow machine.
    """

    name: str
    search: Search
    stages: tuple[tuple[int, int], ...]
    work: int


NUMPY = Engine("numpy", search_numpy, ((256, 1 << 10), (1 << 62, 1 << 13), (1 << 62, 1 << 16)), 1 << 22)


@dataclass(frozen=True, eq=False)
class Completion:
    """choice and its gap to the LP value; proved: no feasible choice has a smaller gap. core: groups in the core."""

    choice: IntArray
    gap: float
    proved: bool
    core: int
    states: int


def penalties(
    loss: NDArray[np.float64], cost: IntArray, choice: IntArray, slope: float
) -> tuple[NDArray[np.float64], IntArray]:
    """(penalty, extra cost) of every cell against the chosen one; forbidden cells have penalty inf."""
    rows = np.arange(len(loss))
    dcost = cost - cost[rows, choice][:, None]
    penalty = (loss - loss[rows, choice][:, None]) + slope * dcost
    return np.maximum(penalty, 0.0), dcost


def magnitude(loss: NDArray[np.float64], cost: IntArray, choice: IntArray, slope: float) -> float:
    """Summed magnitudes that the rounding of the certificate is relative to."""
    rows = np.arange(len(loss))
    return float(np.abs(loss[rows, choice]).sum()) + slope * float(cost[rows, choice].sum())


def complete(
    loss: NDArray[np.float64],
    cost: IntArray,
    choice: IntArray,
    slope: float,
    slack: int,
    seconds: float,
    engine: Engine = NUMPY,
) -> Completion:
    """Best feasible choice near the LP vertex `choice`, within `seconds` and the engine's work."""
    gap, end = slope * slack, time.monotonic() + seconds
    tiny = TINY * magnitude(loss, cost, choice, slope)
    proved, best, states, work, rows = gap <= tiny, choice.copy(), 0, engine.work, 0
    penalty, dcost = penalties(loss, cost, choice, slope)
    for groups, held in engine.stages:
        if proved or work <= 0 or time.monotonic() > end:
            break
        core = Core.build(penalty, dcost, choice, gap)
        part = core.head(groups)
        found = engine.search(part, slope, slack, gap, Effort(held, work, tiny, end))
        if found.cells is not None:
            gap, best = found.gap, choice.copy()
            best[part.group[found.cells]] = part.format[found.cells]
        proved = gap <= tiny or (found.complete and part is core)
        work, states, rows = work - found.work, max(states, found.states), core.rows
    return Completion(best, gap, proved, rows, states)
