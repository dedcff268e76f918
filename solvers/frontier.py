"""The whole frontier in one go: the best loss for every value of one limit, and the integral plan at any of them.

The breakpoints of the linear relaxation are the prefix sums of the hull steps by falling slope (research/05 section 6):
between two of them the bound is linear, at each of them a plan attains it exactly.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.core.certificate import total_loss
from bitwright.core.errors import InvalidProblem, Unsupported
from bitwright.core.problem import Problem
from bitwright.core.solution import Solution, uniform_choices
from solvers import long_frontier
from solvers.base import Deadline
from solvers.finish import finish
from solvers.hull import at_limit
from solvers.hulls import Hulls, build_hulls
from solvers.reduce import Reduced, rebound, reduce_problem

KNEE_RULE = "greatest distance below the chord between the ends, both axes scaled to 0..1"


@dataclass(frozen=True)
class Uniform:
    """A uniform plan on the same axes."""

    format: int
    name: str
    cost: float
    loss: float


@dataclass(frozen=True, eq=False)
class Frontier:
    """cost (m,) rising, loss (m,) falling: plans that attain the LP bound; gain (m,): loss saved per unit of
    cost by the next step (0 at the last point). Costs in the units of the limit `limit`. complete: no breakpoint of the
    relaxation is left out. long: where the points are those of one pass over a large table, their multipliers.
    """

    limit: str
    cost: NDArray[Any]
    loss: NDArray[np.float64]
    gain: NDArray[np.float64]
    uniforms: Callable[[], tuple[Uniform, ...]]
    plan: Callable[[int | float, float], Solution]
    complete: bool = True
    long: long_frontier.Points | None = None

    def __len__(self) -> int:
        return len(self.cost)

    @cached_property
    def uniform(self) -> tuple[Uniform, ...]:
        """The uniform plans; of a large table they cost a pass of their own."""
        return self.uniforms()

    def at(self, value: int | float, *, time_limit: float = 10.0) -> Solution:
        """The certified integral plan at one value of the limit: hulls, scaling and validation are not repeated."""
        return self.plan(value, time_limit)

    def bound(self, value: int | float) -> float:
        """LP value at one limit, or a little less: no plan of at most this cost has less loss. inf below the least."""
        if value < self.cost[0]:
            return math.inf
        if self.long is not None:
            return self.long.bound(value)
        cost = self.cost.astype(np.float64)
        if self.complete or value >= cost[-1]:
            return float(np.interp(value, cost, self.loss))
        # Convex: between two points it lies above the chords beside theirs, made longer.
        i = int(np.searchsorted(cost, value, side="right"))
        found = [self.loss[-1]]
        if i >= 2:
            found.append(_line(cost[i - 2 : i], self.loss[i - 2 : i], value))
        if i + 1 < len(cost):
            found.append(_line(cost[i : i + 2], self.loss[i : i + 2], value))
        return float(max(found))

    @cached_property
    def knee(self) -> int:
        """Index of the knee (KNEE_RULE)."""
        if len(self) < 3 or self.loss[0] == self.loss[-1]:
            return 0
        x = (self.cost - self.cost[0]) / float(self.cost[-1] - self.cost[0])
        y = (self.loss - self.loss[-1]) / float(self.loss[0] - self.loss[-1])
        return int((1.0 - x - y).argmax())

    def thin(self, points: int | None) -> NDArray[np.int64]:
        """Indices of at most about `points` breakpoints, evenly spread over cost; ends and knee always."""
        if points is None or len(self) <= points:
            return np.arange(len(self))
        wanted = np.linspace(float(self.cost[0]), float(self.cost[-1]), max(2, points))
        found = np.searchsorted(self.cost, wanted).clip(0, len(self) - 1)
        return np.unique(np.concatenate([found, [0, self.knee, len(self) - 1]]))

    def to_json(self, points: int | None = 1000) -> dict[str, Any]:
        keep = self.thin(points)
        rows = zip(self.cost[keep].tolist(), self.loss[keep].tolist(), self.gain[keep].tolist(), strict=True)
        knee = {"cost": self.cost[self.knee].item(), "loss": self.loss[self.knee].item(), "rule": KNEE_RULE}
        return {
            "limit": self.limit,
            "breakpoints": len(self),
            "points": [{"cost": c, "loss": v, "gain_per_unit": g} for c, v, g in rows],
            "uniform": [{"format": u.format, "name": u.name, "cost": u.cost, "loss": u.loss} for u in self.uniform],
            "knee": knee,
        }

    def to_csv(self, points: int | None = None) -> str:
        """Columns cost, loss, gain_per_unit, kind (frontier, knee or uniform:<name>)."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["cost", "loss", "gain_per_unit", "kind"])
        for i in self.thin(points).tolist():
            kind = "knee" if i == self.knee else "frontier"
            writer.writerow([self.cost[i].item(), repr(self.loss[i].item()), repr(self.gain[i].item()), kind])
        for u in self.uniform:
            writer.writerow([u.cost, repr(u.loss), "", f"uniform:{u.name}"])
        return out.getvalue()


def frontier(problem: Problem, limit: str | None = None, points: int | None = None) -> Frontier:
    """Every budget at once. limit: name of a limit or resource, needed when the problem has several.

    points: keep at most about this many breakpoints (evenly spread over cost); all by default. Raises Unsupported for
    further limits, rules and pair terms, InvalidProblem for a limit that is not there.
    """
    name = _name(problem, limit)
    if name not in {m.name for m in problem.limits}:
        problem = problem.with_limit(name, 0)
    if len(problem.limits) > 1 or problem.rules or len(problem.pairs):
        raise Unsupported(
            "a frontier is over one limit", expected="one limit, no rules, no pair terms", got=_got(problem)
        )
    if long_frontier.serves(problem):
        got = long_frontier.points(problem)
        uniforms = partial(_long_uniform, problem, got)
        return _thinned(Frontier(name, got.cost, got.loss, got.gain, uniforms, got.plan, False, got), points)
    reduced = reduce_problem(problem)
    row = reduced.limits[0]
    hulls = build_hulls(reduced.loss, row.weight)
    grid = row.paid + hulls.cost + np.append(0, np.cumsum(hulls.steps.dcost))
    cost = np.ldexp(grid.astype(np.float64), -row.shift) if row.grid else grid
    gains = -hulls.steps.dloss[::-1]
    last = math.fsum(reduced.loss.min(axis=1).tolist())
    # Summed from the smallest loss upward, so that small losses keep their relative precision.
    loss = np.ldexp(np.append(0.0, np.cumsum(gains))[::-1] + last, reduced.exponent)
    gain = np.ldexp(np.append(hulls.steps.slope, 0.0), reduced.exponent + row.shift)
    plan = partial(_plan_at, reduced, hulls)
    return _thinned(Frontier(name, cost, loss, gain, partial(_uniform, problem), plan), points)


def _thinned(found: Frontier, points: int | None) -> Frontier:
    falls = np.append(True, np.diff(found.loss) < 0)
    if not falls.all():  # steps that save less than the rounding of the total lead nowhere
        gain = np.append(found.gain[falls][:-1], 0.0)
        found = replace(found, cost=found.cost[falls], loss=found.loss[falls], gain=gain)
    if points is None:
        return found
    keep = found.thin(points)
    complete = found.complete and len(keep) == len(found)
    return replace(found, cost=found.cost[keep], loss=found.loss[keep], gain=found.gain[keep], complete=complete)


def _line(x: NDArray[np.float64], y: NDArray[np.float64], at: float) -> float:
    return float(y[0] + (y[1] - y[0]) * ((at - x[0]) / (x[1] - x[0])))


def _plan_at(reduced: Reduced, hulls: Hulls, value: int | float, time_limit: float) -> Solution:
    moved = rebound(reduced, value)
    row = moved.limits[0]
    return finish(moved, at_limit(moved, row, hulls, row.bound, Deadline.after(time_limit)), "hull")


def _name(problem: Problem, limit: str | None) -> str:
    names = [m.name for m in problem.limits] or [r.name for r in problem.resources]
    if limit is not None:
        return limit
    if len(names) != 1:
        raise InvalidProblem(
            "say which limit the frontier is over", expected=", ".join(names) or "a problem with costs"
        )
    return names[0]


def _got(problem: Problem) -> str:
    return f"{len(problem.limits)} limits, {len(problem.rules)} rules, {len(problem.pairs)} pair terms"


def _uniform(problem: Problem) -> tuple[Uniform, ...]:
    limit = problem.limits[0]
    resource = problem.resource(limit.resource)
    names = problem.format_names or tuple(str(j) for j in range(problem.k))
    return tuple(
        Uniform(j, names[j], resource.total(choice, limit.units), total_loss(problem, choice))
        for j, choice in uniform_choices(problem)
    )


def _long_uniform(problem: Problem, points: long_frontier.Points) -> tuple[Uniform, ...]:
    resource = problem.resource(problem.limits[0].resource)
    assert resource.rate is not None
    names = problem.format_names or tuple(str(j) for j in range(problem.k))
    total, losses = resource.sizes.total, points.uniform
    return tuple(
        Uniform(j, names[j], total * int(r), float(losses[j]))
        for j, r in enumerate(resource.rate)
        if np.isfinite(losses[j])
    )


def draw(found: Frontier, path: str) -> None:
    """A picture (format by the file's ending): frontier, uniform plans, knee. PNG needs resvg-py."""
    from solvers.picture import draw_frontier

    draw_frontier(found, path)
