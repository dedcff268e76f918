"""What a plan is measured beside: plans that people would take without a table."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

import solvers
from bitwright.core.certificate import violations
from bitwright.core.problem import IntArray, Problem
from bitwright.core.solution import uniform_choices


@dataclass(frozen=True, eq=False)
class Baselines:
    """Choices; None where there is none. below: the best feasible uniform one; above: the cheapest uniform one of no
    fewer bytes than the plan; positional: "first and last layers high" within the same limit.
    """

    below: IntArray | None
    above: IntArray | None
    positional: IntArray | None


def baselines(problem: Problem, choice: IntArray, seed: int) -> Baselines:
    """Those of the plan `choice`."""
    below, above = uniform_neighbours(problem, choice)
    # A rule of thumb keeps no recipe's rules, so it is asked for the budget alone.
    budget_alone = replace(problem, rules=(), limits=problem.limits[:1])
    thumb = solvers.solve(budget_alone, "positional", seed=seed)
    return Baselines(below, above, thumb.choice if thumb.feasible else None)


def uniform_neighbours(problem: Problem, choice: IntArray) -> tuple[IntArray | None, IntArray | None]:
    """(best feasible uniform choice, cheapest uniform one of no fewer bytes than `choice`); None if there is none."""
    bytes_of = problem.resource("bytes").total
    uniform = [candidate for _, candidate in uniform_choices(problem)]
    feasible = [c for c in uniform if not violations(problem, c)]
    rows = np.arange(problem.n)
    below = min(feasible, key=lambda c: float(problem.loss[rows, c].sum()), default=None)
    no_fewer = [c for c in uniform if bytes_of(c) >= bytes_of(choice)]
    above = min(no_fewer, key=bytes_of, default=None)
    return below, above
