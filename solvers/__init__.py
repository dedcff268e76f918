"""Solvers: a `Problem` in, a `Solution` with an independently checkable certificate out."""

from __future__ import annotations

from dataclasses import replace

from bitwright.core.errors import Unsupported
from bitwright.core.problem import Problem
from bitwright.core.solution import Solution
from solvers.base import Solver

AUTO = "auto"


def solve(problem: Problem, solver: str = AUTO, *, time_limit: float = 10.0, seed: int = 0) -> Solution:
    """Solve `problem` with a named solver, or with the one that `auto` chooses (said in `Solution.info`).

    time_limit: seconds > 0. An infeasible problem gives a Solution whose certificate says so. Raises UnknownName,
    Unsupported (a feature that the named solver does not take), InvalidSetting (time limit) and OutOfResources (time
    ran out before any plan was found).
    """
    from solvers.catalog import SOLVERS

    if solver != AUTO:
        member: Solver = SOLVERS.load(solver)
        return member.solve(problem, time_limit=time_limit, seed=seed)
    name, why = choose(problem)
    member = SOLVERS.load(name)
    solution = member.solve(problem, time_limit=time_limit, seed=seed)
    return replace(solution, info={**solution.info, "auto": {"solver": name, "why": why}})


def choose(problem: Problem) -> tuple[str, str]:
    """(solver, why): the first available exact solver of the catalog that takes every feature of the problem."""
    from solvers.capabilities import capabilities, features
    from solvers.catalog import SOLVERS

    wanted = features(problem)
    passed = []
    for entry in SOLVERS:
        able = capabilities(entry)
        missing = able.missing(wanted)
        if missing:
            passed.append(f"{entry.name} does not take {', '.join(missing)}")
        elif not able.exact:
            passed.append(f"{entry.name} cannot prove its answer")
        elif not entry.available:
            passed.append(f"{entry.name} is not installed")
        else:
            return entry.name, "; ".join(
                [*passed, f"{entry.name} takes all that the problem asks for and can prove it"]
            )
    raise Unsupported(
        "no installed solver takes this problem",
        got="; ".join(passed),
        hint="pip install highspy for the solver 'milp'",
    )


__all__ = ["AUTO", "choose", "solve"]
