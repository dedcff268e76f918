"""Solvers: a `Problem` in, a `Solution` with an independently checkable certificate out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from bitwright.core.errors import InvalidInput, OutOfResources, Unsupported
from bitwright.core.problem import Problem
from bitwright.core.solution import Solution
from solvers.base import WHOLE, Deadline, Solver
from solvers.capabilities import capabilities, features
from solvers.catalog import SOLVERS

AUTO = "auto"
#: Cells up to which an exact solver is not slow, and the share of the time for one that is asked before it.
FEW_CELLS, EARLY = 256, 0.25
#: Seconds that a solver gets even where its import took them all.
LEAST = 1e-3


def solve(problem: Problem, solver: str = AUTO, *, time_limit: float = 10.0, seed: int = 0) -> Solution:
    """Solve `problem` with a named solver, or with the one that `auto` chooses (said in `Solution.info`).

    time_limit: seconds > 0. An infeasible problem gives a Solution whose certificate says so. Raises UnknownName,
    InvalidInput (seed), Unsupported (a feature that the named solver does not take), InvalidSetting (time limit) and
    OutOfResources (time ran out before any plan was found).
    """
    if not isinstance(problem, Problem):
        raise InvalidInput("this is not a problem", expected="a Problem (see load_problem)", got=type(problem).__name__)
    if not isinstance(solver, str):
        raise InvalidInput("a solver is called by its name", expected="text", got=repr(solver)[:40])
    if not isinstance(seed, WHOLE) or not 0 <= seed < 2**31:
        raise InvalidInput("the seed is out of range", expected="an integer from 0 to 2^31 - 1", got=str(seed)[:40])
    time_limit, seed = Deadline.after(time_limit).seconds, int(seed)
    if solver != AUTO:
        return _run(solver, problem, time_limit, seed)
    begin = time.monotonic()

    def late() -> bool:
        """Whether as much again would be too long: loaded machines, where one look at a large table takes half."""
        return 2 * (time.monotonic() - begin) > time_limit

    name, why = choose(problem)
    early = _before(name, problem)
    found = None if early is None else _plan_of(early, problem, EARLY * time_limit, seed, needed=late)
    if found is None or (found.certificate.status != "optimal" and not (found.feasible and late())):
        left = max(min(time_limit, LEAST), time_limit - (time.monotonic() - begin))
        planless = found is None or not found.feasible
        found = _better(found, _plan_of(name, problem, left, seed, needed=lambda: planless))
    if found.solver != name:
        why = f"{why}; {found.solver} was asked before it, and its answer is as good"
    return replace(found, info={**found.info, "auto": {"solver": found.solver, "why": why}})


def _run(name: str, problem: Problem, seconds: float, seed: int) -> Solution:
    """The solver of that name; what its import takes is the caller's time too."""
    deadline = Deadline.after(seconds)
    member: Solver = SOLVERS.load(name)
    return member.solve(problem, time_limit=max(min(seconds, LEAST), deadline.left), seed=seed)


def _before(name: str, problem: Problem) -> str | None:
    """The solver that is asked before an exact one that gets slow: one that takes the problem and often proves it."""
    if capabilities(SOLVERS.get(name)).large == float("inf"):
        return None
    wanted = features(problem)
    if wanted.cells <= FEW_CELLS:
        return None
    able = ((entry, capabilities(entry)) for entry in SOLVERS)
    return next((e.name for e, c in able if c.often and e.available and not c.missing(wanted)), None)


def _plan_of(name: str, problem: Problem, seconds: float, seed: int, *, needed: Callable[[], bool]) -> Solution | None:
    """The solution of one solver; None where time ran out before it had a plan, unless one is then needed."""
    try:
        return _run(name, problem, seconds, seed)
    except OutOfResources:
        if needed():
            raise
        return None


def _better(first: Solution | None, second: Solution | None) -> Solution:
    """The second, unless it has no plan or, without a proof, a worse one than the first."""
    if first is None or first.loss is None or (second is not None and second.certificate.status != "bounded"):
        assert second is not None
        return second
    return first if second is None or second.loss is None or first.loss < second.loss else second


def choose(problem: Problem) -> tuple[str, str]:
    """(solver, why): the first available solver of the catalog that takes every feature and can prove its answer.

    Beyond the size at which a prover declares itself slow, the next that takes every feature, proof or not.
    """
    wanted = features(problem)
    passed: list[str] = []
    slow: str | None = None
    for entry in SOLVERS:
        able = capabilities(entry)
        missing = able.missing(wanted)
        if missing:
            passed.append(f"{entry.name} does not take {', '.join(missing)}")
        elif able.made_for and not getattr(wanted, able.made_for):
            passed.append(f"{entry.name} is made for {able.made_for}")
        elif not entry.available:
            passed.append(f"{entry.name} is not installed")
        elif able.exact and wanted.cells > able.large:
            slow = slow or entry.name
            passed.append(f"{entry.name} is slow beyond {able.large:.0f} cells")
        elif not able.exact and slow is None:
            passed.append(f"{entry.name} cannot prove its answer")
        else:
            proof = " and can prove it" if able.exact else " and states its gap"
            return entry.name, "; ".join([*passed, f"{entry.name} takes all that the problem asks for{proof}"])
    if slow is not None:
        return slow, "; ".join([*passed, f"{slow} is the only one that takes all that the problem asks for"])
    hint = "pip install highspy for the solver 'milp'"
    raise Unsupported("no installed solver takes this problem", got="; ".join(passed), hint=hint)


__all__ = ["AUTO", "choose", "solve"]
