"""What a solver is: a method on the reduced problem, wrapped so that every answer is checked the same way.

A method sees a `Reduced` problem (ties merged, losses scaled, costs integral) and returns an `Outcome`. `Solver.solve`
expands the choice, offers the uniform plans as candidates, and has `bitwright.core.certificate` make the certificate
from the ORIGINAL problem: no solver grades itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from bitwright.core.errors import InvalidSetting
from bitwright.core.problem import IntArray, Problem
from bitwright.core.solution import Solution
from solvers.reduce import Reduced, reduce_problem

#: Share of the time that is left for the checks and the certificate of the answer.
CERTIFIED = 0.03
#: Said of a plan that is only a uniform one.
LATE = "time ran out before a plan of its own"


@dataclass(frozen=True)
class Deadline:
    """A point on the monotonic clock; `seconds` is what the caller allowed."""

    seconds: float
    end: float

    @staticmethod
    def after(seconds: float) -> Deadline:
        if not seconds > 0:
            raise InvalidSetting("the time limit must be positive", expected="seconds > 0", got=repr(seconds)[:40])
        return Deadline(seconds, time.monotonic() + seconds)

    def reserving(self, share: float) -> Deadline:
        """The same with a share of the time kept back for what comes after."""
        return Deadline(self.seconds, self.end - share * self.seconds)

    @property
    def left(self) -> float:
        return max(0.0, self.end - time.monotonic())

    @property
    def passed(self) -> bool:
        return time.monotonic() >= self.end


@dataclass(frozen=True)
class Outcome:
    """choice: (groups,) format of each tie group, or None when nothing was found.

    multipliers: in the units of the original problem, by limit name and `rule:<index>`. proof: the complete search that
    closed the gap, if one ran to its end. messages, curvature: of pair terms, as in `Certificate`. blame: set exactly
    when the problem was PROVED infeasible; multipliers may then prove it, and reachable says the least total of limits.
    """

    choice: IntArray | None
    multipliers: Mapping[str, float] = field(default_factory=dict)
    proof: str | None = None
    blame: str | None = None
    messages: tuple[float, ...] | None = None
    curvature: tuple[float, ...] | None = None
    reachable: Mapping[str, int | float] | None = None
    info: Mapping[str, Any] = field(default_factory=dict)


Method = Callable[[Reduced, Deadline, int], Outcome]


class SolverLike(Protocol):
    """The contract of every catalog entry."""

    name: str

    def solve(self, problem: Problem, *, time_limit: float = 10.0, seed: int = 0) -> Solution: ...


@dataclass(frozen=True)
class Solver:
    """A method under its catalog name. `solve` raises Unsupported for features that the method does not declare."""

    name: str
    method: Method

    def solve(self, problem: Problem, *, time_limit: float = 10.0, seed: int = 0) -> Solution:
        from solvers.capabilities import require_support
        from solvers.finish import finish

        deadline = Deadline.after(time_limit).reserving(CERTIFIED)
        require_support(self.name, problem)
        reduced = reduce_problem(problem)
        return finish(reduced, self.method(reduced, deadline, seed), self.name)
