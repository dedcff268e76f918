"""The frontier of a large compact table in one pass: exact points, one for each of 64 slopes an octave.

At the edge between two stretches of slopes every unit takes its best format for that multiplier, so each point is a
vertex of the linear relaxation with its exact cost and loss (sums in integers and float64); between two points the
bound is at most a share (1/64)^2 / 8 of the loss saved between them below their chord (the slopes differ by 1/64).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.core.problem import Problem
from solvers import native, stream

#: Smaller tables get every breakpoint.
LONG = 1 << 18
MOST_FORMATS = 16


@dataclass(frozen=True, eq=False)
class Points:
    """cost rising, loss falling, gain: loss saved per unit of cost up to the next point (0 at the last).

    uniform: (k,) loss of each uniform plan.
    """

    cost: NDArray[np.int64]
    loss: NDArray[np.float64]
    gain: NDArray[np.float64]
    uniform: NDArray[np.float64]


def serves(problem: Problem) -> bool:
    """Whether the pass takes the problem: what `stream` takes, all formats allowed, different rates, positive sizes."""
    if problem.n < LONG or not 2 <= problem.k <= MOST_FORMATS or not stream.streams(problem):
        return False
    resource = problem.resource(problem.limits[0].resource)
    assert resource.rate is not None
    distinct = len(np.unique(resource.rate)) == problem.k
    return distinct and resource.sizes.least > 0 and not problem.extremes.forbids


def points(problem: Problem) -> Points:
    """Raises OutOfResources when memory ran out."""
    resource = problem.resource(problem.limits[0].resource)
    assert resource.rate is not None
    order = np.argsort(resource.rate, kind="stable").astype(np.int32)
    spread = problem.extremes.greatest - problem.extremes.least
    usual = spread / (resource.sizes.total / problem.n)  # slopes of single precision range around this, scaled to 1
    found = native.frontier(
        problem.loss,
        order,
        size=resource.size,
        rate=resource.rate,
        sizes=resource.sizes,
        scale=1 / usual if usual > 0 else 1.0,
        mapped=stream.in_files(problem),
        threads=stream.threads(problem),
    )
    used = np.flatnonzero(found.cost)[::-1]
    step, saved = found.cost[used], found.saved[used]
    cost = found.first_cost + np.append(0, np.cumsum(step))
    # Summed from the smallest loss upward, so that small losses keep their relative precision.
    loss = np.append(0.0, np.cumsum(saved[::-1]))[::-1] + found.last
    return Points(cost, loss, np.append(saved / step, 0.0), found.uniform)


def plan_at(problem: Problem, value: int | float, time_limit: float) -> Any:
    """The certified plan at one value: one pass, with nothing validated or measured again."""
    from solvers.hull import SOLVER

    return SOLVER.solve(problem.with_limit(problem.limits[0].name, value), time_limit=time_limit)
