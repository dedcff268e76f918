"""What a solver is: a method on the reduced problem, wrapped so that every answer is checked the same way.

A method sees a `Reduced` problem (ties merged, losses scaled, costs integral) and returns an `Outcome`. `Solver.solve`
expands the choice, offers the uniform plans as candidates, and has `bitwright.core.certificate` make the certificate
from the ORIGINAL problem: no solver grades itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from numbers import Integral, Real
from typing import Any, Protocol

from bitwright.core.errors import InvalidSetting
from bitwright.core.problem import IntArray, Problem
from bitwright.core.solution import Solution
from solvers.reduce import Reduced, reduce_problem

#: Share of the time that is left for the checks and the certificate of the answer; seconds of a cell that they take
#: (uniform plans included), and that each of losses, limits and rules takes to be reduced, on one core, about.
CERTIFIED, CHECKING, REDUCING = 0.03, 3e-8, 4e-8
#: What the checks and the certificate take over what reducing the problem took: 1.1 to 1.9, with many pair terms 2.1.
FINISHING = 2.0
#: Seconds at full speed that a measured load is mixed with: a few milliseconds say little of it.
SETTLED = 5e-3
#: Cells from which nothing is begun that is not expected to end in time.
MANY_CELLS = 1 << 18
#: Seconds, eleven days: more is no limit, and the clocks of some libraries do not take it.
LONGEST = 1e6
#: Plain types first: to ask an abstract class takes ten times as long.
REAL, WHOLE = (float, int, Real), (int, Integral)
#: Said of a plan that is only a uniform one.
LATE = "time ran out before a plan of its own"


@dataclass(frozen=True)
class Deadline:
    """A point on the monotonic clock; `seconds` is what the caller allowed.

    load: seconds on the clock for one of the processor's, where other programs want it too.
    """

    seconds: float
    end: float
    load: float = 1.0

    @staticmethod
    def after(seconds: float) -> Deadline:
        if not isinstance(seconds, REAL) or not seconds > 0:
            raise InvalidSetting("the time limit must be positive", expected="seconds > 0", got=repr(seconds)[:40])
        seconds = float(min(seconds, LONGEST))
        return Deadline(seconds, time.monotonic() + seconds)

    def reserving(self, share: float) -> Deadline:
        """The same with a share of the time kept back for what comes after."""
        return Deadline(self.seconds, self.end - share * self.seconds, self.load)

    def keeping(self, seconds: float) -> Deadline:
        """The same with so many seconds of the processor kept back, at most half of what is left."""
        return replace(self, end=self.end - min(self.load * seconds, self.left / 2))

    def within(self, seconds: float) -> Deadline:
        """So many seconds on the clock from now on, for a part of the work."""
        return replace(self, end=time.monotonic() + max(1e-3, seconds))

    def fits(self, seconds: float, beside: float = 0.0) -> bool:
        """Whether there is time for so many seconds of the processor, and so many `beside` them on the clock."""
        return self.load * seconds + beside < self.left

    @property
    def left(self) -> float:
        return max(0.0, self.end - time.monotonic())

    @property
    def passed(self) -> bool:
        return time.monotonic() >= self.end


class Pace:
    """Rounds that look at the clock: one more is begun where it fits, should it take as long as the longest so far."""

    def __init__(self, deadline: Deadline) -> None:
        self._deadline, self._last, self._longest = deadline, time.monotonic(), 0.0

    def another(self) -> bool:
        now = time.monotonic()
        self._longest, self._last = max(self._longest, now - self._last), now
        return now + self._longest < self._deadline.end


@dataclass(frozen=True)
class Outcome:
    """choice: (groups,) format of each tie group, or None when nothing was found.

    multipliers: in the units of the original problem, by limit name and `rule:<index>`. proof: the complete search that
    closed the gap, if one ran to its end. messages, curvature, cases: as in `Certificate`. blame: set exactly
    when the problem was PROVED infeasible; multipliers may then prove it, and reachable says the least total of limits.
    """

    choice: IntArray | None
    multipliers: Mapping[str, float] = field(default_factory=dict)
    proof: str | None = None
    blame: str | None = None
    messages: tuple[float, ...] | None = None
    curvature: tuple[float, ...] | None = None
    cases: tuple[float, ...] | None = None
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
        from solvers.finish import conclude, finish

        cells = problem.n * problem.k
        begin = time.monotonic(), time.thread_time()
        whole = Deadline.after(time_limit).reserving(CERTIFIED)
        deadline = whole.keeping(CHECKING * cells)
        require_support(self.name, problem)
        rows = 1 + len(problem.limits) + len(problem.rules)
        if cells > MANY_CELLS and not deadline.fits(REDUCING * cells * rows):
            return conclude(problem, None, Outcome(None, info={"stopped": LATE}), self.name)
        before = time.thread_time()
        reduced = reduce_problem(problem)
        wall, worked = time.monotonic() - begin[0], time.thread_time() - begin[1]
        whole = replace(whole, load=max(1.0, (wall + SETTLED) / (worked + SETTLED)))
        deadline = whole.keeping(max(CHECKING * cells, FINISHING * (time.thread_time() - before)))
        if cells > MANY_CELLS and deadline.passed:
            return finish(reduced, Outcome(None, info={"stopped": LATE}), self.name)
        return finish(reduced, self.method(reduced, deadline, seed), self.name)
