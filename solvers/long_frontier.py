"""The frontier of a large compact table in one pass: points at 16 slopes an octave, and rigorous bounds between them.

At the edge between two stretches of slopes every unit takes its best format for that multiplier, so each point is a
plan of known cost and loss, and the line through it with that multiplier lies below the frontier everywhere. Two such
lines meet within a share (1/16)^2 / 8 of the loss saved between two points below their chord. Costs are exact. Slopes
are told apart, and what they save is summed (in float64), in single precision: a loss is known to a share
`native.SINGLE` of what the rest of the frontier saves, and every bound is lowered by that.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
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
    """cost (m,) rising, loss (m,) falling; above, below (m - 1,): multipliers that support the points before and after
    each segment, so that they bound the slopes within it.
    """

    problem: Problem
    cost: NDArray[np.int64]
    loss: NDArray[np.float64]
    above: NDArray[np.float64]
    below: NDArray[np.float64]

    @property
    def gain(self) -> NDArray[np.float64]:
        """Loss saved per unit of cost up to the next point (0 at the last)."""
        return np.append(-np.diff(self.loss) / np.diff(self.cost), 0.0)

    @cached_property
    def uniform(self) -> NDArray[np.float64]:
        """(k,) loss of each uniform plan (inf: forbidden): one more pass, when they are asked for."""
        return native.uniform_losses(self.problem.loss, stream.in_files(self.problem))

    def segment(self, value: int | float) -> int:
        """The segment that a value of the limit falls into."""
        return int(np.searchsorted(self.cost, value, side="right").clip(1, len(self.cost) - 1)) - 1

    def bound(self, value: int | float) -> float:
        """No plan of at most this cost (from the least to the greatest of the points) has less loss."""
        least = self.loss - native.SINGLE * (np.append(self.loss[:1], self.loss[:-1]) - self.loss[-1])
        if value >= self.cost[-1]:
            return float(least[-1])
        i = self.segment(value)
        left = least[i] - self.above[i] * (float(value) - float(self.cost[i]))
        right = least[i + 1] + self.below[i] * (float(self.cost[i + 1]) - float(value))
        return float(max(left, right))

    def plan(self, value: int | float, time_limit: float) -> Any:
        """The certified plan at one value: one pass. The segment brackets the multiplier, so no sample is drawn."""
        from solvers.hull import SOLVER

        moved = self.problem.with_limit(self.problem.limits[0].name, value)
        near = (0.0, np.inf)
        if self.cost[0] < value < self.cost[-1]:
            i = self.segment(value)
            near = (self.below[i], self.above[i])
        return SOLVER.streamed(moved, time_limit, near=near)


def serves(problem: Problem) -> bool:
    """Whether the pass takes the problem: what `stream` takes, two rates or more, positive sizes."""
    if problem.n < LONG or not 2 <= problem.k <= MOST_FORMATS or not stream.streams(problem):
        return False
    resource = problem.resource(problem.limits[0].resource)
    assert resource.rate is not None
    return len(np.unique(resource.rate)) > 1 and resource.sizes.least > 0


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
        regular=not problem.extremes.forbids and len(np.unique(resource.rate)) == problem.k,
        mapped=stream.in_files(problem),
        threads=stream.threads(problem),
    )
    used = np.flatnonzero(found.cost)[::-1]
    step, saved = found.cost[used], found.saved[used]
    first = resource.sizes.total * int(resource.rate[order[0]]) + found.forced
    # Summed from the smallest loss upward, so that small losses keep their relative precision.
    loss = np.append(0.0, np.cumsum(saved[::-1]))[::-1] + found.last
    return Points(
        problem,
        first + np.append(0, np.cumsum(step)),
        loss,
        found.edge[used + 1],
        found.edge[used],
    )
