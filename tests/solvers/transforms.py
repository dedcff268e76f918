"""The same problem said otherwise: permuted, in other units of loss or cost; and the strategies of each solver."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from bitwright.core.problem import Limit, Pairs, Problem, Resource, Rule
from solvers.capabilities import capabilities
from solvers.catalog import SOLVERS
from tests.strategies import covers, problems


def declared(name: str, **options: object) -> st.SearchStrategy[Problem]:
    """Problems with every feature that the solver declares."""
    able = capabilities(SOLVERS.get(name))
    many = able.limits > 1
    if able.only_covers:
        return covers()
    return problems(
        units=(1, 5), formats=(1, 3), rules=able.rules, pairs=able.pairs, ties=able.ties,
        resources=(1, 2) if many else (1, 1), subsets=many, **options,
    )  # fmt: skip


def permuted(problem: Problem, units: np.ndarray, formats: np.ndarray) -> Problem:
    """New unit i is old unit units[i], and so for formats; costs become matrices."""
    unit, form = np.argsort(units), np.argsort(formats)  # old index -> new index
    resources = tuple(Resource(r.name, matrix=r.costs()[units][:, formats]) for r in problem.resources)
    limits = tuple(replace(m, units=None if m.units is None else unit[m.units]) for m in problem.limits)
    rules = tuple(Rule(unit[r.units], form[r.formats], r.sense, r.count) for r in problem.rules)
    pairs = Pairs(unit[problem.pairs.unit], form[problem.pairs.format], problem.pairs.loss)
    tie = None if problem.tie is None else problem.tie[units]
    return Problem(problem.loss[units][:, formats], resources, limits, tie, rules, pairs)


def loss_scaled(problem: Problem, power: int) -> Problem:
    pairs = replace(problem.pairs, loss=np.ldexp(problem.pairs.loss, power))
    loss = np.ldexp(problem.loss.astype(np.float64), power)
    return Problem(loss, problem.resources, problem.limits, problem.tie, problem.rules, pairs)


def cost_scaled(problem: Problem, power: int) -> Problem:
    """Costs and limits times 2^power: integers for a positive power, floats for a negative one."""
    if power > 0:
        matrices = [r.costs() << power for r in problem.resources]
        limits = tuple(replace(m, value=int(m.value) << power) for m in problem.limits)
    else:
        matrices = [np.ldexp(r.costs().astype(np.float64), power) for r in problem.resources]
        limits = tuple(replace(m, value=float(np.ldexp(float(m.value), power))) for m in problem.limits)
    resources = tuple(Resource(r.name, matrix=m) for r, m in zip(problem.resources, matrices, strict=True))
    return Problem(problem.loss, resources, limits, problem.tie, problem.rules, problem.pairs)


def loosened(problem: Problem, more: int) -> Problem:
    """The first limit raised by `more`."""
    first: Limit = problem.limits[0]
    return problem.with_limit(first.name, first.value + more)
