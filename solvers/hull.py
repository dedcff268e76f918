"""`hull`: the certified solver for one limit: compiled where the native library was built, else numpy.

Both paths are the same method (lower hulls, critical slope, gap form, core search); the compiled one also streams large
tables: a sampled bracket of the critical slope, then one fused pass (research/05 section 4).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bitwright.core import cases
from bitwright.core.problem import Problem
from bitwright.core.solution import Solution
from solvers import native, stream
from solvers.base import CERTIFIED, CHECKING, LATE, Deadline, Outcome, Solver
from solvers.core_search import NUMPY, Engine, complete
from solvers.finish import conclude
from solvers.hulls import Hulls, hulls_within, relax
from solvers.infeasibility import limit_blame
from solvers.reduce import Reduced, Row


def hull(reduced: Reduced, deadline: Deadline, seed: int) -> Outcome:
    """One limit or none; the same answer for every seed on tables that are walked whole."""
    if not reduced.limits:
        return Outcome(reduced.loss.argmin(axis=1), info={"method": "least loss of each unit: there is no limit"})
    row = reduced.limits[0]
    if native.library() is None:
        hulls = hulls_within(reduced.loss, row.weight, lambda: deadline.left)
        if hulls is None:
            return Outcome(None, info={"stopped": LATE})
        return at_limit(reduced, row, hulls, row.bound, deadline)
    answer = native.solve_table(reduced.loss, row.bound, matrix=row.weight, seconds=deadline.left, seed=seed)
    outcome = _outcome(answer, reduced.problem, row.name, reduced.multiplier(row, answer.slope), reduced.exponent)
    if row.paid:  # the levels of its cases are not those of the problem's costs
        outcome = replace(outcome, cases=None)
    return outcome if outcome.choice is None else replace(outcome, choice=outcome.choice.astype(np.int64))


def at_limit(reduced: Reduced, row: Row, hulls: Hulls, bound: int, deadline: Deadline) -> Outcome:
    """The outcome at one value of the limit, in numpy, from hulls that are already there."""
    vertex = relax(hulls, bound)
    if vertex is None:
        return Outcome(None, blame=limit_blame(reduced.problem, row.name))
    done = complete(reduced.loss, row.weight, vertex.choice, vertex.slope, vertex.slack, deadline.left, engine())
    return Outcome(
        done.choice,
        {row.name: reduced.multiplier(row, vertex.slope)},
        proof=_proof(done.core) if done.proved else None,
        info={"core": done.core, "states": done.states, "engine": engine().name},
    )


def engine() -> Engine:
    """The core search at hand: compiled, or numpy."""
    if native.library() is None:
        return NUMPY
    return Engine("native", native.core_search, ((256, 1 << 10), (1 << 62, 1 << 14), (1 << 62, 1 << 20)), native.WORK)


def _proof(core: int) -> str:
    return f"complete search of a core of {core} units"


def _outcome(answer: native.TableAnswer, problem: Problem, limit: str, multiplier: float, exponent: int = 0) -> Outcome:
    """exponent: losses of the answer are times 2^-exponent."""
    if answer.status == native.INFEASIBLE:
        return Outcome(None, blame=limit_blame(problem, limit))
    return Outcome(
        answer.choice,  # type: ignore[arg-type]  # bytes: widened by who needs it
        {limit: multiplier},
        proof=_proof(answer.core) if answer.status == native.OPTIMAL else None,
        cases=_scaled(answer.cases, exponent) if len(answer.cases) and cases.fits(problem) else None,
        info={
            "core": answer.core,
            "states": answer.states,
            "passes": answer.passes,
            "engine": "native",
            **({"stopped": LATE} if answer.status == native.LATE else {}),
        },
    )


def _scaled(numbers: NDArray[np.float64], exponent: int) -> tuple[float, ...]:
    """Cases whose multipliers are those of losses times 2^exponent."""
    found, levels = numbers.copy(), int(numbers[0]) + 1
    at = levels
    while at < len(found):
        if found[at] not in (cases.CASE, cases.MODULAR):
            at += 3 if found[at] == cases.UNIT else 2
            continue
        at += 2 if found[at] == cases.MODULAR else 1
        priced = slice(at, at + 1 + levels)
        found[priced] = np.ldexp(found[priced], exponent)
        at += 1 + levels
    return tuple(found.tolist())


@dataclass(frozen=True)
class HullSolver(Solver):
    """`hull` with a short cut: where there is nothing to reduce, a table is solved as it lies."""

    def solve(self, problem: Problem, *, time_limit: float = 10.0, seed: int = 0) -> Solution:
        if not stream.lies_ready(problem):
            return super().solve(problem, time_limit=time_limit, seed=seed)
        return self.streamed(problem, time_limit, seed)

    def streamed(
        self, problem: Problem, time_limit: float, seed: int = 0, near: tuple[float, float] = (0.0, np.inf)
    ) -> Solution:
        """A problem that lies ready. near: where the multiplier is looked for first."""
        checked = problem.n <= stream.CHECKED or not stream.streams(problem)
        checking = CHECKING * problem.n * problem.k if checked else 0.0
        answer = stream.run(problem, Deadline.after(time_limit).reserving(CERTIFIED), seed, near, checking)
        limit = problem.limits[0].name
        outcome = _outcome(answer, problem, limit, answer.slope)
        if not checked and answer.status != native.INFEASIBLE:
            solution = stream.certified(problem, answer, _proof(answer.core), dict(outcome.info))
            if solution is not None:
                return solution
        choice = None if outcome.choice is None else outcome.choice.astype(np.int64)
        return conclude(problem, choice, outcome, self.name)


SOLVER = HullSolver("hull", hull)
